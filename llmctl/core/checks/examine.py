"""Every check over the facts: what each came to, the causes before what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.finding import SEVERITIES, Check, Finding, Remedy, Severity, Unknown

State = Literal["ok", "found", "unknown", "skipped"]
CRASHED = "doctor.check-crashed"


@dataclass(frozen=True)
class Outcome:
    """What one check came to. `why` is for `unknown` and `skipped`; `hides`: it was skipped and is not in order, so
    that what follows from it is skipped too."""

    check: Check
    state: State
    findings: tuple[Finding, ...] = ()
    why: str = ""
    hides: bool = False

    def severity(self, finding: Finding) -> Severity:
        return finding.severity or self.check.severity


def examine(checks: Sequence[Check], facts: Facts) -> tuple[Outcome, ...]:
    """The outcome of each check, in the order given. A check stands after those that it names in `after`."""
    outcomes: dict[str, Outcome] = {}
    for check in checks:
        outcomes[check.id] = _outcome(check, facts, outcomes)
    return tuple(outcomes.values())


def _outcome(check: Check, facts: Facts, before: dict[str, Outcome]) -> Outcome:
    for name in check.after:
        cause = before.get(name)
        if cause is not None and (cause.state == "found" or cause.hides):
            why = cause.why if cause.hides else name
            return Outcome(check, "skipped", why=why, hides=_judged(check, facts).state != "ok")
    return _judged(check, facts)


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
