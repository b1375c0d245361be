"""What only --deep looks at: it makes the model answer."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.checks.facts.gpu import Card


@dataclass(frozen=True)
class DeepFacts:
    """`asked`: the model that was asked for a few tokens, None where none is loaded as it should be.
    `answer_seconds`: until the first of them, None where it failed, with `answer_error`. While it decoded:
    `server_share`, how much of that time `ollama serve` itself computed at most, and `cards`, as NVML showed them at
    work."""

    answer_seconds: float | None = None
    answer_error: str | None = None
    tokens_per_second: float | None = None
    asked: str | None = None
    server_share: float | None = None
    cards: tuple[Card, ...] = ()
