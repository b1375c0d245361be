"""Every check over the facts: what each came to, the causes before what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmctl.core.checks.causes import INTENDED, LEFT_BEHIND
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.finding import SEVERITIES, Check, Finding, Remedy, Severity, Unknown

State = Literal["ok", "found", "unknown", "skipped"]
CRASHED = "doctor.check-crashed"


@dataclass(frozen=True)
class Outcome:
    """What one check came to. `why` is for `unknown` and `skipped`, there the check that is the cause; `hides`: it was
    skipped and is not in order, so that what follows from it is skipped too."""

    check: Check
    state: State
    findings: tuple[Finding, ...] = ()
    why: str = ""
    hides: bool = False

    def severity(self, finding: Finding) -> Severity:
        return finding.severity or self.check.severity

    @property
    def rank(self) -> int:
        """Where its worst finding stands in SEVERITIES; behind all of them without a finding."""
        return min((SEVERITIES.index(self.severity(finding)) for finding in self.findings), default=len(SEVERITIES))


def examine(checks: Sequence[Check], facts: Facts) -> tuple[Outcome, ...]:
    """The outcome of each check, in the order given. A check stands after those that it names in `after`."""
    outcomes: dict[str, Outcome] = {}
    for check in checks:
        outcomes[check.id] = _outcome(check, facts, outcomes)
    return tuple(outcomes.values())


def _outcome(check: Check, facts: Facts, before: Mapping[str, Outcome]) -> Outcome:
    judged = _judged(check, facts)
    for name in check.after:
        cause = _cause(name, before)
        if cause is not None and explains(cause, judged):
            return Outcome(check, "skipped", why=cause.check.id, hides=judged.state != "ok")
    return judged


def _cause(name: str, before: Mapping[str, Outcome]) -> Outcome | None:
    """What has the findings: the check of that name, or the one that it was skipped for."""
    outcome = before.get(name)
    if outcome is not None and outcome.hides:
        return before[outcome.why]
    return outcome if outcome is not None and outcome.state == "found" else None


def explains(cause: Outcome, other: Outcome) -> bool:
    """Whether `other` need not be told beside `cause`, which it stands after. Nothing worse than the cause is hidden,
    unless the cause is what somebody asked for: what follows from that is no fault of its own."""
    if cause.check.id in INTENDED and other.check.id not in LEFT_BEHIND:
        return True
    return cause.rank <= other.rank


def _judged(check: Check, facts: Facts) -> Outcome:
    try:
        said = check.judge(facts)
    except NotGathered as missing:
        return Outcome(check, "unknown", why=str(missing))
    except Exception as error:
        return Outcome(check, "found", (crashed(check, error),))
    if isinstance(said, Unknown):
        return Outcome(check, "unknown", why=said.why)
    findings = (said,) if isinstance(said, Finding) else tuple(said or ())
    return Outcome(check, "found" if findings else "ok", findings)


def crashed(check: Check, error: Exception) -> Finding:
    return Finding(
        observed=f"the check {check.id} ended with {type(error).__name__}: {error}"[:300],
        expected="an answer",
        remedy=Remedy(
            "this is a fault of llmctl: report it with the bundle", ("llmctl doctor --bundle llmctl.tar.gz",)
        ),
        subject=CRASHED,
        severity="warning",
    )


def shown(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Finding]]:
    """Every finding, the worst first; among equals a cause stands before what it causes, as the checks do."""
    every = [(outcome, finding) for outcome in outcomes for finding in outcome.findings]
    return sorted(every, key=lambda pair: SEVERITIES.index(pair[0].severity(pair[1])))
