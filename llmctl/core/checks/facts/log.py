"""What the server's log tells, counted: no text of a request is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogLine:
    """One line of a kind that is known, shortened, and how often that kind came."""

    text: str
    count: int


@dataclass(frozen=True)
class LogFacts:
    """By the kind of line. `source`: the file or the unit; `lines`: how many were read; `since_start`: whether they
    reach back to the server's start."""

    source: str
    lines: int
    since_start: bool
    out_of_memory: LogLine | None = None
    truncated: LogLine | None = None
    loads: int = 0
    contexts: tuple[int, ...] = ()
    keep_alive_string: LogLine | None = None
    embedding_refused: LogLine | None = None
    discovery_failed: LogLine | None = None
    driver_too_old: LogLine | None = None
    visible_overridden: LogLine | None = None
    slots_cut: LogLine | None = None
    memory_not_recovered: LogLine | None = None
    debug: bool = False
