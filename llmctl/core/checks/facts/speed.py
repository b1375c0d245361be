"""How fast answers were, and how fast this machine can be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpeed:
    """One resident model where it lies now. None is unknown.

    `tokens_per_second` is the middle of the last `answers`, `best_tokens_per_second` the fastest middle that this
    place ever showed here. `first_tokens` are (tokens of the prompt, seconds) of the last answers. `expected_…` is the
    roofline's range of tokens a second, `first_token_most` its upper end of seconds for `first_token_tokens`, and
    `basis` says of what. `host_share` is the part of a token's time that reading host memory takes
    by the roofline, `cache_share` the part that a full context adds.
    """

    name: str
    place: str
    context: int
    answers: int = 0
    tokens_per_second: float | None = None
    best_tokens_per_second: float | None = None
    first_tokens: tuple[tuple[int, float], ...] = ()
    expected_least: float | None = None
    expected_most: float | None = None
    first_token_most: float | None = None
    first_token_tokens: int = 0
    basis: str = ""
    host_share: float | None = None
    cache_share: float | None = None


@dataclass(frozen=True)
class SpeedFacts:
    """Only models that are loaded, and whose place is known."""

    models: tuple[ModelSpeed, ...] = ()
