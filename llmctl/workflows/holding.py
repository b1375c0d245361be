"""guard --hold and --resume: what a person says to a guard that runs, or will."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmctl.system import pauses


@dataclass(frozen=True)
class HoldResult:
    """Whether the guard is held now, and until when by the wall clock; None: until it is taken back."""

    held: bool
    changed: bool
    until_seconds: float | None = None


def hold(runtime: Path, seconds: float | None) -> HoldResult:
    """Keep its hands off, for `seconds` or until `resume`."""
    made = pauses.hold(runtime, "guard --hold", seconds)
    return HoldResult(held=True, changed=True, until_seconds=made.until_seconds)


def resume(runtime: Path) -> HoldResult:
    """End a hold, whoever asked for it."""
    return HoldResult(held=False, changed=pauses.release(runtime))
