"""Faults as they come together: the first finding that is shown is the cause of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartOllama
from tests.doctor import faults
from tests.doctor.conftest import Patient, ids
from tests.doctor.faults import Scene
from tests.doctor.proving import scenarios
from tests.parts import rpc
from tests.parts.engine import InstalledEngine
from tests.parts.nvml import NvmlStandin
from tests.parts.rpc import RpcGpu

ON_HOST = [scenario for scenario in scenarios() if scenario["where"] == "host"]


@pytest.fixture
def scene(
    patient: Patient,
    engine: InstalledEngine,
    nvml_standin: NvmlStandin,
    ollama_server: StartOllama,
    small_disk: Callable[[int], Path],
    starter_gguf: Path,
    tmp_path: Path,
) -> Iterator[Scene]:
    started: list[RpcGpu] = []

    def gpu() -> RpcGpu:
        started.append(rpc.start(engine, tmp_path))
        return started[-1]

    made = Scene(patient, engine, nvml_standin, gpu, ollama_server, small_disk, tmp_path, starter_gguf)
    yield made
    made.clean_up()
    for each in started:
        each.stop()


def test_there_are_thirty_and_each_is_made_to_happen() -> None:
    assert len({scenario["id"] for scenario in scenarios()}) == 30
    in_container = (Path(__file__).parent / "test_service.py").read_text()
    for scenario in scenarios():
        assert scenario in ON_HOST or f'root_of("{scenario["id"]}")' in in_container


@pytest.mark.real("ollama", "model", "nvml", "rpc", "tmpfs")
@pytest.mark.parametrize("scenario", ON_HOST, ids=lambda scenario: scenario["id"])
def test_the_first_finding_is_the_cause(scene: Scene, scenario: dict[str, Any]) -> None:
    for name in scenario["given"]:
        if name in faults.prepare:
            faults.prepare[name](scene)
    if scene.foreign:
        faults.attached(scene)
    if scene.comes_up:
        scene.patient.up()
    for name in scenario["given"]:
        if name in faults.happen:
            faults.happen[name](scene)
    report = scene.patient.report("--profile", scene.patient.profile)
    assert ids(report)[:1] == [scenario["root"]], (ids(report), report["unknown"], report["skipped"])
