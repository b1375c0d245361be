"""What the server's log tells, counted: no text of a request is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RECENT_SECONDS = 3600.0


@dataclass(frozen=True)
class LogLine:
    """The last line of a kind that is known, shortened, how often that kind came since the server's start, and how
    often within the last hour: None where the log gives no times."""

    text: str
    count: int
    recent: int | None = None

    @property
    def lately(self) -> int:
        """How often within the last hour; in all where that is not known."""
        return self.count if self.recent is None else self.recent


@dataclass(frozen=True)
class Load:
    """One start of a runner for a model. `context` is of all slots together; `at_seconds` of the wall clock.
    `devices` are those that the runner said it uses, each with the name of its card."""

    weights_digest: str
    context: int | None
    slots: int | None
    at_seconds: float | None = None
    devices: tuple[tuple[str, str], ...] = ()

    @property
    def per_slot(self) -> int | None:
        return None if self.context is None else self.context // max(1, self.slots or 1)


@dataclass(frozen=True)
class FailedLoad:
    """A load that ended with an error, and none of the same weights was begun since. `error` is the engine's own word,
    shortened."""

    weights_digest: str
    error: str
    at_seconds: float | None = None


@dataclass(frozen=True)
class LogFacts:
    """By the kind of line, since the server's start. `source`: the file or the unit; `lines`: how many were read;
    `since_start`: whether they reach back to the server's start, `complete_from`: from when on none is missing where
    they do not, None where that is not known. `now_seconds`: when it was read, as the times in it.

    `config` is the effective environment that the server logged. `gpus`: what its discovery found (empty: none), and
    `gpu_lines` how it said so; None where that is not in the log. `out_of_memory` is a load or an answer that failed
    for want of memory, `evicting` models that were unloaded for another that had no room beside them,
    `context_lowered` an automatic context that was lowered for want of memory. `runner_ended` counts runners that ended
    while they were wanted. `failed`: at most one for each model.
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
    slots_cut: LogLine | None = None
    context_capped: LogLine | None = None
    memory_not_recovered: LogLine | None = None
    memory_not_refreshed: LogLine | None = None
    evicting: LogLine | None = None
    context_lowered: LogLine | None = None
    runner_ended: LogLine | None = None
    failed: tuple[FailedLoad, ...] = ()
    port_in_use: LogLine | None = None
    config: Mapping[str, str] | None = None
    gpus: tuple[str, ...] | None = None
    gpu_lines: tuple[str, ...] = ()
    debug: bool = False
    now_seconds: float | None = None
    complete_from: float | None = None

    def is_lately(self, at_seconds: float | None) -> bool:
        """Whether that was within the last hour, or may have been."""
        return at_seconds is None or self.now_seconds is None or at_seconds >= self.now_seconds - RECENT_SECONDS

    @property
    def recent_loads(self) -> tuple[Load, ...]:
        """Those of the last hour, and those without a time."""
        return tuple(load for load in self.loads if self.is_lately(load.at_seconds))

    def last_load(self, weights_digest: str | None) -> Load | None:
        """Of these weights; None where a later one may be among the lines that are left out."""
        load = next((load for load in reversed(self.loads) if load.weights_digest == weights_digest), None)
        if load is None or self.since_start:
            return load
        if load.at_seconds is None or self.complete_from is None:
            return None
        return load if load.at_seconds >= self.complete_from else None

    @property
    def has_the_start(self) -> bool:
        """Whether a line of the server's start would be in it: of a long log its beginning is read too."""
        return self.since_start or self.config is not None

    @property
    def has_the_hour(self) -> bool:
        """Whether a line of the last hour would be in it."""
        if self.since_start:
            return True
        if self.complete_from is None or self.now_seconds is None:
            return False
        return self.complete_from <= self.now_seconds - RECENT_SECONDS
