"""What this machine has shown: numbers only, in the state folder, and never a word of a prompt.

{"schema": 1, "runtime": {"<engine>|<driver>|<GPU>": bytes}, "speed": {"<weights digest>|<place>": [tokens/s, ...]}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "learnt.json"
SCHEMA = 1
LIMIT_BYTES = 1 << 20
# Of each model the last answers count; of many, the middle one.
KEPT = 20


@dataclass
class Learnt:
    """`runtime` is bytes of one GPU beyond llama.cpp's buffers, `speed` tokens a second of past answers."""

    runtime: dict[str, int] = field(default_factory=dict)
    speed: dict[str, list[float]] = field(default_factory=dict)

    def runtime_bytes(self, engine: str, driver: str | None, gpu: str) -> int | None:
        return self.runtime.get(_key(engine, driver, gpu))

    def tokens_per_second(self, weights_digest: str, place: str) -> tuple[float, int] | None:
        """The middle of the last answers, and how many they are."""
        seen = sorted(self.speed.get(f"{weights_digest}|{place}", ()))
        return (seen[len(seen) // 2], len(seen)) if seen else None

    def add_runtime(self, engine: str, driver: str | None, gpu: str, count_bytes: int) -> None:
        """The most that was seen stays: the figure is there so that nothing runs out."""
        key = _key(engine, driver, gpu)
        self.runtime[key] = max(count_bytes, self.runtime.get(key, 0))

    def add_speed(self, weights_digest: str, place: str, tokens_per_second: float) -> None:
        key = f"{weights_digest}|{place}"
        self.speed[key] = [*self.speed.get(key, []), round(tokens_per_second, 2)][-KEPT:]


def read(state: Path) -> Learnt:
    """What was learnt so far; nothing where the file is missing or is not one of these."""
    try:
        with (state / NAME).open("rb") as file:
            data: Any = json.loads(file.read(LIMIT_BYTES))
        runtime = {str(key): int(value) for key, value in data["runtime"].items()}
        speed = {str(key): [float(value) for value in values][-KEPT:] for key, values in data["speed"].items()}
        return Learnt(runtime, speed)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Learnt()


def write(state: Path, learnt: Learnt) -> None:
    from llmctl.system import files

    document = {"schema": SCHEMA, "runtime": learnt.runtime, "speed": learnt.speed}
    files.make_folder(state)
    files.atomic_write(state / NAME, json.dumps(document, indent=1).encode(), mode=0o600)


def _key(engine: str, driver: str | None, gpu: str) -> str:
    return f"{engine}|{driver or 'unknown'}|{gpu}"
