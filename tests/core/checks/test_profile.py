"""What is said of a profile and its lock."""

from __future__ import annotations

import pytest

from llmctl.core.checks.examine import examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.profile import CHECKS
from llmctl.core.profile import ModelSpec, Profile


@pytest.mark.parametrize(
    ("hint", "commands"),
    [
        # `up` alone would read the same lock again.
        ("mv my.lock my.lock.old", ("mv my.lock my.lock.old", "llmctl up mine")),
        ("upgrade llmctl", ("llmctl --version",)),
    ],
)
def test_a_lock_that_cannot_be_read_is_out_of_the_way_before_up(hint: str, commands: tuple[str, ...]) -> None:
    broken = ProfileFacts(Profile("mine", (ModelSpec("m"),)), lock_problem="no lock", lock_hint=hint)
    (finding,) = examine(CHECKS, Facts({"profile": broken}))[1].findings
    assert finding.remedy.commands == commands
