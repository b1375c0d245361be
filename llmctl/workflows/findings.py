"""What a look of the guard came to, in the form in which it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.core.guard.decide import Decision
    from llmctl.core.guard.facts import Finding
    from llmctl.workflows.watched import Watched

# The worst first: what STATUS= and the note say of several models.
WORST = (
    "degraded",
    "driver_mismatch",
    "gpu_lost",
    "not_running",
    "stuck",
    "wrong_digest",
    "on_cpu",
    "partial",
    "load_failed",
    "evicted",
    "server_replaced",
    "wrong_context",
    "loading",
    "leased",
    "held",
    "probe_slow",
    "busy",
    "resident",
)
# Answering or not makes no event: a busy model is where it should be.
QUIET = {"busy": "resident"}


@dataclass(frozen=True)
class Found:
    """What one look came to for one model."""

    model: str
    reason: str
    words: str
    expected: str
    observed: str
    degraded: bool
    remedy: str
    action: str | None
    good: bool


@dataclass(frozen=True)
class GuardResult:
    """One look at everything, as `guard --once` shows it."""

    profile: str
    server: str
    models: tuple[Found, ...]

    @property
    def good(self) -> bool:
        return bool(self.models) and all(model.good for model in self.models)


def as_found(model: Watched, finding: Finding, decision: Decision) -> Found:
    return as_found_of(model.want.name, finding, decision)


def as_found_of(name: str, finding: Finding, decision: Decision) -> Found:
    return Found(
        name,
        finding.reason,
        finding.words,
        finding.expected,
        finding.observed,
        decision.degraded,
        finding.remedy,
        decision.action,
        finding.good,
    )


def status_words(found: Found) -> str:
    """What STATUS= says: plain, and what a person must do where the guard has given up."""
    if found.degraded:
        helps = f"; {found.remedy}" if found.remedy else ""
        return f"degraded: {found.words}{helps}"
    return found.words
