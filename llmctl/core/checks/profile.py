"""Checks of what a person wrote."""

from __future__ import annotations

import shlex

from llmctl.core.checks.facts import Facts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy


def invalid(facts: Facts) -> Judgement:
    profile = facts.profile
    if not profile.problem:
        return None
    remedy = Remedy("correct it; compare with a valid one", ("llmctl init --dry-run",))
    return Finding(profile.problem, "a valid profile", remedy)


def lock_unreadable(facts: Facts) -> Judgement:
    profile = facts.profile
    if not profile.lock_problem:
        return None
    newer = not profile.lock_hint.startswith("mv ")
    up = f"llmctl up {shlex.quote(profile.profile.reference)}" if profile.profile else "llmctl up"
    remedy = Remedy(
        profile.lock_hint
        if newer
        else "take it from where you keep it (it is made to be committed), or move it away and pin anew",
        ("llmctl --version",) if newer else (profile.lock_hint, up),
    )
    return Finding(profile.lock_problem, "a lock that can be read", remedy, subject=profile.lock_path)


CHECKS = (
    Check(
        "profile.invalid",
        "The profile cannot be used",
        "error",
        "The profile is validated as a whole. While it is wrong nothing says what should run, so nothing that needs it "
        "is looked at.",
        invalid,
    ),
    Check(
        "profile.lock-unreadable",
        "The lock cannot be read",
        "error",
        "The lock beside the profile has the pins. Without it nothing tells which weights are the right ones.",
        lock_unreadable,
        after=("profile.invalid",),
    ),
)
