"""The log of a server that llmctl started: its end, and what is kept of the older ones."""

from __future__ import annotations

from pathlib import Path

LIMIT_BYTES = 10 << 20
KEPT = 5


def rotate(log: Path) -> None:
    """Move a log that has grown aside, keeping the last few."""
    try:
        if log.stat().st_size < LIMIT_BYTES:
            return
    except FileNotFoundError:
        return
    for number in range(KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))


def tail(path: Path, limit_bytes: int) -> str:
    """The last bytes of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit_bytes))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
