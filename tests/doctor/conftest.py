"""A machine for doctor: a real server that `llmctl up` brought up, and beside it a scripted NVIDIA driver."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.proving import complete
from tests.lifecycle.conftest import Done, Llmctl, llmctl, prepared, ready  # noqa: F401 - fixtures
from tests.parts.nvml import NvmlStandin


@dataclass
class Patient:
    """llmctl in the test's own HOME. `environ` goes to every run of it."""

    cli: Llmctl
    profile: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> Done:
        return self.cli(*arguments, environ=self.environ)

    def up(self) -> dict[str, Any]:
        done = self("up", self.profile, "--json", "--yes")
        assert done.code == 0, done.err
        return dict(done.json)

    def report(self, *arguments: str) -> dict[str, Any]:
        """doctor's document; every finding in it is complete, and the exit code is what it says."""
        done = self("doctor", "--json", *arguments)
        assert done.out, done.err
        report = dict(done.json)
        assert done.code == (5 if report["verdict"] == "errors" else 0), done.out
        for finding in report["findings"]:
            complete(finding)
        return report

    def finding(self, check: str, *arguments: str) -> dict[str, Any]:
        """The first finding of a check."""
        report = self.report(*arguments)
        found = [finding for finding in report["findings"] if finding["id"] == check]
        assert found, (
            f"{check} was not found: {ids(report)}; unknown: {report['unknown']}; skipped: {report['skipped']}"
        )
        return dict(found[0])

    def fine(self, check: str, *arguments: str) -> bool:
        """Whether a check was looked at and found nothing."""
        report = self.report(check, *arguments)
        return not report["findings"] and not report["unknown"] and not report["skipped"]

    @property
    def state(self) -> Path:
        return Path(os.environ["XDG_STATE_HOME"]) / "llmctl"


def ids(report: dict[str, Any]) -> list[str]:
    return [finding["id"] for finding in report["findings"]]


@pytest.fixture
def patient(llmctl: Llmctl, ready: str) -> Patient:  # noqa: F811
    """Pinned and in its store, not up yet; no GPU required. Mark: `real("ollama", "model")`."""
    return Patient(llmctl, ready)


@pytest.fixture
def healthy(patient: Patient) -> Patient:
    """Up, resident and proved on the CPU."""
    patient.up()
    return patient


@pytest.fixture
def with_driver(patient: Patient, nvml_standin: NvmlStandin) -> tuple[Patient, NvmlStandin]:
    """The same beside a scripted driver; `nvml_standin.set(...)` says what it tells. Mark: `real("nvml", …)`."""
    patient.environ.update(nvml_standin.environ)
    return patient, nvml_standin
