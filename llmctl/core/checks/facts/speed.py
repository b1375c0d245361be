"""How fast answers were, and how fast this machine can be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeedFacts:
    """Of one model where it lies now. `seen_…` is the middle of the last `answers`; `expected_…` the roofline's range.

    `baseline_tokens_per_second`: the best that `answers` in this place ever showed here. `gpu_share`: of the
    weights' bytes. None is unknown.
    """

    model: str | None = None
    place: str | None = None
    answers: int = 0
    seen_tokens_per_second: float | None = None
    seen_first_token_seconds: float | None = None
    expected_least: float | None = None
    expected_most: float | None = None
    basis: str = ""
    gpu_share: float | None = None
