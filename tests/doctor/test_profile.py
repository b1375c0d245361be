"""The profile and the engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes

pytestmark = pytest.mark.real("ollama", "model")


@provokes("profile.invalid")
def test_a_wrong_key_is_the_only_finding(patient: Patient) -> None:
    path = Path(patient.profile)
    path.write_text(path.read_text().replace("context:", "contxt:"))
    found = patient.finding("profile.invalid", "--profile", patient.profile)
    assert "contxt" in found["observed"]
    assert ids(patient.report("--profile", patient.profile)) == ["profile.invalid"]


@provokes("profile.lock-unreadable")
def test_a_damaged_lock(patient: Patient) -> None:
    Path(patient.profile).with_suffix(".lock").write_text("schema: 1\nmodels: what\n")
    found = patient.finding("profile.lock-unreadable", "--profile", patient.profile)
    assert found["subject"].endswith("my.lock")


@provokes("engine.none")
def test_no_ollama_at_all_is_one_finding(patient: Patient) -> None:
    patient.cli.environ.pop("LLMCTL_ENGINE")
    folders = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "ollama").exists()]
    patient.environ |= {"PATH": ":".join(folders), "LLMCTL_ENGINES_DIR": str(patient.cli.folder / "no-engines")}
    report = patient.report("--profile", patient.profile)
    assert ids(report) == ["engine.none"]
    assert report["findings"][0]["remedy"]["commands"] == ["llmctl engine install"]


@provokes("engine.no-llama-server")
def test_the_runner_is_gone_under_a_running_server(patient: Patient, tmp_path: Path) -> None:
    ollama = Path(patient.cli.environ["LLMCTL_ENGINE"])
    copy = tmp_path / "engine"
    shutil.copytree(ollama.parent.parent, copy, copy_function=os.link, symlinks=True)
    patient.cli.environ["LLMCTL_ENGINE"] = str(copy / "bin" / "ollama")
    patient.up()
    (copy / "lib" / "ollama" / "llama-server").unlink()
    assert patient.finding("engine.no-llama-server")["subject"] == str(copy / "bin" / "ollama")
    assert patient("down").code == 0
    assert patient.finding("engine.no-llama-server")["severity"] == "error"


@provokes("engine.no-llama-quantize")
def test_the_quantizer_is_gone(patient: Patient, tmp_path: Path) -> None:
    ollama = Path(patient.cli.environ["LLMCTL_ENGINE"])
    copy = tmp_path / "engine"
    shutil.copytree(ollama.parent.parent, copy, copy_function=os.link, symlinks=True)
    (copy / "lib" / "ollama" / "llama-quantize").unlink()
    patient.cli.environ["LLMCTL_ENGINE"] = str(copy / "bin" / "ollama")
    assert patient.finding("engine.no-llama-quantize", "--profile", patient.profile)["severity"] == "warning"
