"""doctor: gather every fact once, look at all of them, and apply what is safe where it is asked for."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmctl.core.checks.catalogue import CHECKS
from llmctl.core.checks.examine import Outcome, examine, shown
from llmctl.core.checks.finding import Check, Remedy, Severity
from llmctl.core.progress import Progress, Step
from llmctl.workflows.gather import gather

if TYPE_CHECKING:
    from llmctl.core.checks.facts import Facts
    from llmctl.workflows.gather import Given

FIX_SECONDS = 1800.0
PAGE = "docs/checks.md"


@dataclass(frozen=True)
class Found:
    """One finding, as it is shown. `link` leads to its check's section in docs/checks.md."""

    id: str
    severity: Severity
    title: str
    subject: str
    observed: str
    expected: str
    evidence: tuple[str, ...]
    remedy: Remedy
    link: str


@dataclass(frozen=True)
class NotKnown:
    """A check that could not tell, or that was not looked at because of another one."""

    id: str
    why: str


@dataclass(frozen=True)
class Fixed:
    """A safe remedy that was applied. `code` is the command's exit code."""

    command: str
    code: int
    said: str


@dataclass(frozen=True)
class Report:
    """What doctor came to. `ok` is how many checks found nothing; `verdict` the worst that was found."""

    verdict: str
    findings: tuple[Found, ...]
    unknown: tuple[NotKnown, ...]
    skipped: tuple[NotKnown, ...]
    ok: int
    took_seconds: float
    fixed: tuple[Fixed, ...] = ()

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def safe_commands(self) -> tuple[str, ...]:
        """What --fix would run, each once, in the order of the findings."""
        return tuple(
            dict.fromkeys(command for found in self.findings if found.remedy.safe for command in found.remedy.commands)
        )


def look(given: Given, checks: Sequence[Check], *, deep: bool) -> tuple[Report, Facts]:
    """One look at everything that `checks` need. A cause is looked at with what follows from it."""
    began = time.monotonic()
    facts = gather(given, deep=deep)
    named = {check.id for check in checks}
    every = examine(with_causes(checks), facts)
    # A check that was not looked at because of a cause is no answer without that cause.
    hidden = {one.why for one in every if one.check.id in named and one.state == "skipped" and one.hides}
    outcomes = [one for one in every if one.check.id in named | hidden]
    return report(outcomes, time.monotonic() - began), facts


def with_causes(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks, and all that they stand after."""
    wanted = {check.id for check in checks}
    for check in reversed(CHECKS):
        if check.id in wanted:
            wanted |= set(check.after)
    return tuple(check for check in CHECKS if check.id in wanted)


def report(outcomes: Sequence[Outcome], took_seconds: float) -> Report:
    findings = tuple(
        Found(
            outcome.check.id,
            outcome.severity(finding),
            outcome.check.title,
            finding.subject,
            finding.observed,
            finding.expected,
            finding.evidence,
            finding.remedy,
            f"{PAGE}#{outcome.check.id.replace('.', '')}",
        )
        for outcome, finding in shown(outcomes)
    )
    worst = {finding.severity for finding in findings}
    verdict = "errors" if "error" in worst else "warnings" if "warning" in worst else "clean"
    return Report(
        verdict,
        findings,
        not_known(outcomes, "unknown"),
        not_known(outcomes, "skipped"),
        sum(outcome.state == "ok" for outcome in outcomes),
        took_seconds,
    )


def not_known(outcomes: Iterable[Outcome], state: str) -> tuple[NotKnown, ...]:
    return tuple(NotKnown(outcome.check.id, outcome.why) for outcome in outcomes if outcome.state == state)


def fix(given: Given, checks: Sequence[Check], first: Report, progress: Progress, *, deep: bool) -> Report:
    """Run the safe remedies of `first`, one after the other, and look again."""
    fixed = tuple(apply(command, given, progress) for command in first.safe_commands)
    again, _ = look(replace(given, progress=progress), checks, deep=deep)
    return replace(again, fixed=fixed)


def apply(command: str, given: Given, progress: Progress) -> Fixed:
    """One command of llmctl's own, by this very installation."""
    from llmctl.system.command import run

    name, *arguments = shlex.split(command)
    if name != "llmctl":
        raise ValueError(f"not a command of llmctl: {command}")
    progress(Step(command, command))
    done = run((sys.executable, "-m", "llmctl", *arguments), environ=dict(given.environ), timeout_seconds=FIX_SECONDS)
    last = done.tail[-1].strip()[:300] if done.tail else ""
    progress(Step(command, command, "done" if done.status == 0 else "failed", last))
    return Fixed(command, done.status, last)
