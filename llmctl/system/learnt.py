"""What this machine has shown: numbers only, in the state folder, and never a word of a prompt.

{"schema": 1, "runtime": {"<engine>|<driver>|<GPU>": bytes}, "speed": {"<weights digest>|<place>": [tokens/s, ...]},
 "context": {"<weights digest>|<place>": [tokens, ...]}, "best": {"<weights digest>|<place>": tokens/s},
 "first_token": {"<weights digest>|<place>": [[tokens, seconds], ...]},
 "residual": {"<engine>|<driver>|<weights digest>": [[predicted bytes, measured bytes], ...]}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

NAME = "learnt.json"
SCHEMA = 1
LIMIT_BYTES = 1 << 20
# Of each model the last answers count; of many, the middle one.
KEPT = 20
# Of its loads the last few, which say whether a prediction is always wrong by as much.
KEPT_LOADS = 5
# So many answers make a figure that others are compared with.
TELLING = 5
T = TypeVar("T", int, float)


@dataclass
class Learnt:
    """`runtime` is bytes of one GPU beyond llama.cpp's buffers, `speed` tokens a second of past answers, `context`
    how many tokens prompt and answer were together in the last of them, `best` the highest middle of several of them,
    `first_token` how long a prompt of so many tokens waited for its first one,
    `residual` what the GPUs were to hold and held of a load."""

    runtime: dict[str, int] = field(default_factory=dict)
    speed: dict[str, list[float]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    first_token: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    residual: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    context: dict[str, list[int]] = field(default_factory=dict)

    def runtime_bytes(self, engine: str, driver: str | None, gpu: str) -> int | None:
        return self.runtime.get(_key(engine, driver, gpu))

    def tokens_per_second(self, weights_digest: str, place: str) -> tuple[float, int] | None:
        """The middle of the last answers, and how many they are."""
        seen = self.speed.get(_place(weights_digest, place), ())
        return (_middle(seen), len(seen)) if seen else None

    def lately(self, weights_digest: str, place: str) -> float | None:
        """The middle of the last few answers; None where they are too few."""
        seen = self.speed.get(_place(weights_digest, place), ())[-TELLING:]
        return _middle(seen) if len(seen) == TELLING else None

    def context_tokens(self, weights_digest: str, place: str) -> int | None:
        """Prompt and answer together, in the middle of the last few answers. None where an older llmctl noted some of
        these."""
        key = _place(weights_digest, place)
        counted = min(TELLING, len(self.speed.get(key, ())))
        seen = self.context.get(key, ())[-TELLING:]
        return _middle(seen) if seen and len(seen) >= counted else None

    def best_tokens_per_second(self, weights_digest: str, place: str) -> float | None:
        return self.best.get(_place(weights_digest, place))

    def first_tokens(self, weights_digest: str, place: str) -> tuple[tuple[int, float], ...]:
        return tuple(self.first_token.get(_place(weights_digest, place), ()))

    def residuals(self, engine: str, driver: str | None, weights_digest: str) -> tuple[tuple[int, int], ...]:
        """(predicted bytes, measured bytes) of the last loads, the oldest first."""
        return tuple(self.residual.get(_key(engine, driver, weights_digest), ()))

    def add_residual(
        self, engine: str, driver: str | None, weights_digest: str, predicted_bytes: int, measured_bytes: int
    ) -> None:
        """The same figures again, of a load that was known already or went as the last one, say nothing new."""
        key, figures = _key(engine, driver, weights_digest), (predicted_bytes, measured_bytes)
        known = self.residual.get(key, [])
        if known[-1:] != [figures]:
            self.residual[key] = [*known, figures][-KEPT_LOADS:]

    def add_runtime(self, engine: str, driver: str | None, gpu: str, count_bytes: int) -> None:
        """The most that was seen stays: the figure is there so that nothing runs out."""
        key = _key(engine, driver, gpu)
        self.runtime[key] = max(count_bytes, self.runtime.get(key, 0))

    def add_speed(self, weights_digest: str, place: str, tokens_per_second: float, context_tokens: int) -> None:
        key = _place(weights_digest, place)
        self.context[key] = [*self.context.get(key, []), context_tokens][-KEPT:]
        self.speed[key] = [*self.speed.get(key, []), round(tokens_per_second, 2)][-KEPT:]
        lately = self.lately(weights_digest, place)
        if lately is not None:
            self.best[key] = max(lately, self.best.get(key, 0.0))

    def add_first_token(self, weights_digest: str, place: str, prompt_tokens: int, seconds: float) -> None:
        key = _place(weights_digest, place)
        self.first_token[key] = [*self.first_token.get(key, []), (prompt_tokens, round(seconds, 3))][-KEPT:]


def read(state: Path) -> Learnt:
    """What was learnt so far; nothing where the file is missing, is not one of these or holds what is no number."""
    try:
        with (state / NAME).open("rb") as file:
            data: Any = json.loads(file.read(LIMIT_BYTES))
        return Learnt(
            {str(key): int(value) for key, value in data["runtime"].items()},
            {str(key): _counting(map(_finite, values))[-KEPT:] for key, values in data["speed"].items()},
            {str(key): best for key, value in data.get("best", {}).items() for best in _counting([_finite(value)])},
            {str(key): _first_tokens(values)[-KEPT:] for key, values in data.get("first_token", {}).items()},
            {
                str(key): [(int(predicted), int(measured)) for predicted, measured in values][-KEPT_LOADS:]
                for key, values in data.get("residual", {}).items()
            },
            {str(key): _counting(map(int, values))[-KEPT:] for key, values in data.get("context", {}).items()},
        )
    except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        return Learnt()


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no figure")
    return number


def _counting(figures: Iterable[T]) -> list[T]:
    """Those above 0: an answer of no speed, or of no tokens, says nothing of others."""
    return [figure for figure in figures if figure > 0]


def _first_tokens(values: Iterable[tuple[Any, Any]]) -> list[tuple[int, float]]:
    figures = [(int(tokens), _finite(seconds)) for tokens, seconds in values]
    return [(tokens, seconds) for tokens, seconds in figures if tokens > 0 and seconds > 0]


def write(state: Path, learnt: Learnt) -> None:
    from llmctl.system import files

    document = {
        "schema": SCHEMA,
        "runtime": learnt.runtime,
        "speed": learnt.speed,
        "context": learnt.context,
        "best": learnt.best,
        "first_token": learnt.first_token,
        "residual": learnt.residual,
    }
    files.make_folder(state)
    files.atomic_write(state / NAME, json.dumps(document, indent=1).encode(), mode=0o600)


def _middle(seen: Sequence[T]) -> T:
    return sorted(seen)[len(seen) // 2]


def _place(weights_digest: str, place: str) -> str:
    return f"{weights_digest}|{place}"


def _key(engine: str, driver: str | None, what: str) -> str:
    """Of a GPU by its name, of weights by their digest."""
    return f"{engine}|{driver or 'unknown'}|{what}"
