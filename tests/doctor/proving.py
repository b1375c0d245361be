"""How a test says which checks it proves, and what holds of every finding."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.doctor.remedies import parses

Test = TypeVar("Test", bound=Callable[..., None])


@lru_cache(maxsize=1)
def scenarios() -> list[dict[str, Any]]:
    """Faults as they come together, and the check that finds their cause."""
    return list(yaml.safe_load((Path(__file__).parent / "scenarios.yaml").read_text()))


def root_of(scenario: str) -> str:
    """For the scenarios on systemd, which tests/doctor/test_service.py makes happen."""
    return next(str(each["root"]) for each in scenarios() if each["id"] == scenario)


def provokes(*ids: str, injected: str = "") -> Callable[[Test], Test]:
    """The test makes the condition of these checks happen. `injected`: why it cannot really happen here, so that it is
    told to llmctl at `system/` instead."""
    assert ids

    def mark(test: Test) -> Test:
        test.__dict__["provokes"] = (ids, injected)
        return test

    return mark


def complete(finding: dict[str, Any]) -> None:
    """Every finding has what product and docs promise, and commands that llmctl or the system can parse."""
    assert finding["observed"]
    assert finding["expected"]
    assert finding["remedy"]["text"]
    assert finding["remedy"]["commands"], finding
    for command in finding["remedy"]["commands"]:
        parses(command)
        if finding["remedy"]["safe"]:
            assert command.startswith("llmctl "), command
