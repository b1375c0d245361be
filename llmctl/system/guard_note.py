"""guard.json in the runtime folder: what the guard last said, for `status` and for whoever looks."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import LlmctlError
from llmctl.system import vitals
from llmctl.system.files import atomic_write, read_bounded

NAME = "guard.json"
SCHEMA = 1
LIMIT_BYTES = 256 << 10


@dataclass(frozen=True)
class ModelNote:
    """What the guard last found of one model. `remedy` is what a person can do, empty where there is nothing."""

    name: str
    reason: str
    words: str
    degraded: bool
    remedy: str = ""


@dataclass(frozen=True)
class Note:
    """`reason` and `words` are the worst model's; `since_seconds` is when it became so, by the wall clock.

    `action` is the last step taken, None before the first. `counters`: how often each reason and action was told of.
    `alive` False: the guard that wrote it has ended. `ready`: every model was resident and proved at the last look.
    """

    reason: str
    words: str
    since_seconds: float
    action: str | None
    degraded: bool
    ready: bool
    models: tuple[ModelNote, ...]
    counters: dict[str, dict[str, int]]
    pid: int
    started: int
    alive: bool = True


def write(runtime: Path, note: Note) -> None:
    document = {key: value for key, value in asdict(note).items() if key != "alive"}
    atomic_write(runtime / NAME, json.dumps({"schema": SCHEMA, **document}).encode())


def read(runtime: Path) -> Note | None:
    """What the guard of this runtime folder wrote last; None where there was none, or it cannot be read as one."""
    try:
        data = json.loads(read_bounded(runtime / NAME, LIMIT_BYTES))
        return _parsed(data)
    except (LlmctlError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _parsed(data: dict[str, Any]) -> Note | None:
    if data.pop("schema", None) != SCHEMA:
        return None
    models = tuple(ModelNote(**model) for model in data.pop("models"))
    note = Note(**data, models=models)
    process = vitals.read(note.pid)
    alive = process is not None and process.started == note.started
    return Note(**{**data, "models": models, "alive": alive})


def own_identity() -> tuple[int, int]:
    """The pid of this process and when it started, as a note has them."""
    process = vitals.read(os.getpid())
    return os.getpid(), process.started if process else 0


def remove(runtime: Path) -> None:
    """For a guard that ends: nobody watches any more."""
    (runtime / NAME).unlink(missing_ok=True)
