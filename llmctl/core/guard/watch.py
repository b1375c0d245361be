"""A look into the memory."""

from __future__ import annotations

from dataclasses import replace

from llmctl.core.guard.facts import Eviction, Loaded, Look, Memory, Want, entry_of, ours

# What an idle runner does not reach in a minute of looks, whose own questions cost it a little.
IDLE_CPU_SECONDS = 0.02
IDLE_READ_BYTES = 1 << 20


def watch(memory: Memory, want: Want, look: Look) -> Memory:
    """The memory after a look."""
    now = look.at_seconds
    if look.pause is not None:
        # What stops while somebody else has the GPU is no fault, and what comes back is proved anew.
        return replace(
            memory, runner_identity=None, mark=None, advanced_at=None, server_quiet_since=None, probe_wanted=True
        )
    entry = entry_of(want, look)
    if entry is not None and not memory.there:
        # What its load took is nobody's answer.
        memory = replace(memory, mark=None)
    memory = _watch_load(_watch_runner(_watch_server(memory, look), look), look, there=entry is not None)
    others = [model for model in look.loaded if not ours(want, model)]
    quiet = look.others_busy is False or not (others or look.other_runners)
    stopping = entry is not None and entry.stays_seconds is not None and entry.stays_seconds < 0
    memory = _watch_place(memory, look, there=entry is not None, others=others)
    return replace(
        memory,
        others_quiet_since=_since(memory.others_quiet_since, quiet, now),
        gpu_awaited_since=_since(
            memory.gpu_awaited_since, look.server == "absent" and look.unit == "awaiting_gpu", now
        ),
        stopping_since=_since(memory.stopping_since, stopping and not memory.advancing, now),
        there=entry is not None,
        was_resident=memory.was_resident or entry is not None,
        probe_wanted=memory.probe_wanted or look.resumed,
    )


def _watch_place(memory: Memory, look: Look, *, there: bool, others: list[Loaded]) -> Memory:
    """Who took its place; a model that is still being loaded is not named yet."""
    if there or look.server != "answers":
        return replace(memory, gone=False)
    gone = memory.gone or memory.judged in {"resident", "busy", "probe_slow"}
    if not (gone and others):
        return replace(memory, gone=gone)
    new = Eviction(look.at_seconds, others[0].name, others[0].context)
    return replace(memory, gone=False, evictions=(*memory.evictions, new)[-32:])


def _watch_load(memory: Memory, look: Look, *, there: bool) -> Memory:
    """A load that failed says nothing any more of a server that has it, or of another server."""
    if look.server != "answers":
        return memory
    other = look.server_identity is not None and look.server_identity != memory.failed_on
    memory = replace(memory, answered=look.server_identity)
    return replace(memory, load_error=None, failed_on=None) if there or other else memory


def _since(before: float | None, holds: bool, now: float) -> float | None:
    """Since when something holds."""
    if not holds:
        return None
    return now if before is None else before


def _watch_server(memory: Memory, look: Look) -> Memory:
    before, now = memory.server_cpu_seconds, look.server_cpu_seconds
    works = before is not None and now is not None and before != now
    deaf = look.server == "silent" and not works
    return replace(
        memory,
        server_cpu_seconds=look.server_cpu_seconds,
        server_quiet_since=_since(memory.server_quiet_since, deaf, look.at_seconds),
    )


def _watch_runner(memory: Memory, look: Look) -> Memory:
    """Progress is anything that an idle runner does not do."""
    runner = look.runner
    if runner is None:
        return replace(memory, mark=None, advancing=False)
    mark = (runner.cpu_seconds, runner.read_bytes, runner.gpu_bytes)
    if runner.identity != memory.runner_identity:
        return replace(
            memory,
            runner_identity=runner.identity,
            mark=mark,
            advanced_at=look.at_seconds,
            advancing=bool(runner.processing),
            probe_wanted=True,
            probe_error=None,
            probe_seconds=None,
            stopping_since=None,
        )
    # Since it last came further, so that a slow machine does not look like a dead one.
    advancing = memory.mark is not None and moved(memory.mark, mark)
    return replace(
        memory,
        mark=mark if advancing or memory.mark is None else memory.mark,
        advancing=advancing or bool(runner.processing and runner.state != "T"),
        advanced_at=look.at_seconds if advancing or memory.advanced_at is None else memory.advanced_at,
    )


def moved(before: tuple[float, int | None, int | None], now: tuple[float, int | None, int | None]) -> bool:
    """Whether CPU time, what was read, or memory of the GPU tell of work between two marks."""
    cpu, read, gpu = (0.0 if a is None or b is None else abs(b - a) for a, b in zip(before, now, strict=True))
    return cpu > IDLE_CPU_SECONDS or read > IDLE_READ_BYTES or gpu > 0
