"""No false alarm: a machine on which all is well has no finding, not even one for information."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.doctor.conftest import Patient, ids
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "model")


def test_on_the_cpu(healthy: Patient) -> None:
    assert healthy.report()["findings"] == []


@pytest.mark.real("rpc")
def test_on_a_stand_in_gpu(patient: Patient, rpc_gpu: RpcGpu) -> None:
    patient.cli.environ |= rpc_gpu.environ
    path = Path(patient.profile)
    path.write_text(path.read_text().replace("require: none", "require: full"))
    patient.up()
    assert patient.report()["findings"] == []


@pytest.mark.real("nvml")
@pytest.mark.parametrize("cards", [1, 2], ids=["rtx-3090", "2x24gb"])
def test_beside_scripted_cards(with_driver: tuple[Patient, NvmlStandin], cards: int) -> None:
    patient, standin = with_driver
    uuid = "GPU-3f2a7c10-0000-4000-8000-00000000000"
    standin.set(*(ScriptedGpu(uuid=f"{uuid}{number}") for number in range(cards)))
    patient.up()
    assert patient.report()["findings"] == []


def test_without_any_ollama_there_is_one_finding(patient: Patient) -> None:
    del patient.cli.environ["LLMCTL_ENGINE"]
    folders = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "ollama").exists()]
    patient.environ |= {"PATH": ":".join(folders), "LLMCTL_ENGINES_DIR": str(patient.cli.folder / "no-engines")}
    assert ids(patient.report("--profile", patient.profile)) == ["engine.none"]
