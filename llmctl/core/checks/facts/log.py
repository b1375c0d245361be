"""What the server's log tells, counted: no text of a request is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RECENT_SECONDS = 3600.0


@dataclass(frozen=True)
class LogLine:
    """The last line of a kind that is known, shortened, and how often that kind came."""

    text: str
    count: int


@dataclass(frozen=True)
class Load:
    """One start of a runner for a model. `context` is of all slots together; `at_seconds` of the wall clock."""

    weights_digest: str
    context: int | None
    slots: int | None
    at_seconds: float | None = None

    @property
    def per_slot(self) -> int | None:
        return None if self.context is None else self.context // max(1, self.slots or 1)


@dataclass(frozen=True)
class LogFacts:
    """By the kind of line, since the server's start. `source`: the file or the unit; `lines`: how many were read;
    `since_start`: whether they reach back to the server's start.

    `config` is the effective environment that the server logged. `gpus`: what its discovery found (empty: none), and
    `gpu_lines` how it said so; None where that is not in the log. `out_of_memory` is a load or an answer that failed
    for want of memory, `evicting` a model that was unloaded for another that was predicted not to fit beside it,
    `context_lowered` an automatic context that was lowered for want of memory. `runner_ended` counts runners that ended
    while they were wanted, `load_failed` loads that ended with an error.
    """

    source: str
    lines: int
    since_start: bool
    out_of_memory: LogLine | None = None
    truncated: LogLine | None = None
    loads: tuple[Load, ...] = ()
    keep_alive_string: LogLine | None = None
    embedding_refused: LogLine | None = None
    discovery_failed: LogLine | None = None
    driver_too_old: LogLine | None = None
    device_skipped: LogLine | None = None
    visible_overridden: LogLine | None = None
    slots_cut: LogLine | None = None
    context_capped: LogLine | None = None
    memory_not_recovered: LogLine | None = None
    memory_not_refreshed: LogLine | None = None
    evicting: LogLine | None = None
    context_lowered: LogLine | None = None
    runner_ended: LogLine | None = None
    load_failed: LogLine | None = None
    port_in_use: LogLine | None = None
    config: Mapping[str, str] | None = None
    gpus: tuple[str, ...] | None = None
    gpu_lines: tuple[str, ...] = ()
    debug: bool = False

    @property
    def recent_loads(self) -> tuple[Load, ...]:
        """Those within an hour of the last one; all where the log gives no times."""
        if not self.loads or self.loads[-1].at_seconds is None:
            return self.loads
        began = self.loads[-1].at_seconds - RECENT_SECONDS
        return tuple(load for load in self.loads if load.at_seconds is None or load.at_seconds >= began)
