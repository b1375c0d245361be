"""How fast answers were, and how fast this machine can be."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.memory.token_time import Span, TokenTime


@dataclass(frozen=True)
class ModelSpeed:
    """One resident model where it lies now. None is unknown.

    `tokens_per_second` is the middle of the last `answers`, `best_tokens_per_second` the fastest middle that this
    place ever showed here, and `used_tokens` what prompt and answer took of the context in the last ones.
    `first_tokens` are (tokens of the prompt, seconds) of the last answers. `expected_…` is the roofline's range of
    tokens a second, and `basis` says of what; `unknown` says why there is none.

    `time` is what a token takes by the roofline, with the cache filled up to `used_tokens`, or full where these are
    unknown; `cache_share` is the cache's part of the bytes that it reads then. `crossing_bytes` go between host and
    cards for a token at most. A prompt takes `prompt_seconds` of arithmetic for each token, and of the
    `host_weights_bytes` the `host_read_bytes` or more are copied to a card once for each `batch` of its tokens.
    `cards` are the names of those that it lies on, `runner_pid` is who holds them.
    """

    name: str
    place: str
    context: int
    answers: int = 0
    tokens_per_second: float | None = None
    best_tokens_per_second: float | None = None
    used_tokens: int | None = None
    first_tokens: tuple[tuple[int, float], ...] = ()
    expected_least: float | None = None
    expected_most: float | None = None
    basis: str = ""
    unknown: str = ""
    time: TokenTime | None = None
    cache_share: float | None = None
    crossing_bytes: int = 0
    prompt_seconds: Span | None = None
    host_weights_bytes: int = 0
    host_read_bytes: int = 0
    batch: int = 512
    cards: tuple[str, ...] = ()
    runner_pid: int | None = None


@dataclass(frozen=True)
class SpeedFacts:
    """Only models that are loaded, and whose place is known."""

    models: tuple[ModelSpeed, ...] = ()
