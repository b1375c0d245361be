"""What a process has done so far, from /proc: whether it does anything is the difference of two readings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Vitals:
    """`state` as in proc(5): R, S, D, T (stopped). `started` is in clock ticks since the boot.

    `read_bytes` counts what it read, from a cache too; None where it belongs to another user.
    """

    pid: int
    state: str
    parent_pid: int
    cpu_seconds: float
    started: int
    read_bytes: int | None
    user: int

    @property
    def identity(self) -> str:
        """Names this process for as long as the machine runs: a pid is used again, the pair is not."""
        return f"{self.pid}/{self.started}"

    @property
    def age_seconds(self) -> float:
        import time

        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / TICKS


def read(pid: int) -> Vitals | None:
    """None when there is no such process, or only its zombie."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - read at every look
            text = file.read().decode("ascii", "replace")
            user = os.fstat(file.fileno()).st_uid
        # The name stands in parentheses and may contain any character, a parenthesis too.
        words = text.rpartition(")")[2].split()
        state, parent, cpu, started = words[0], int(words[1]), int(words[11]) + int(words[12]), int(words[19])
    except (OSError, ValueError, IndexError):
        return None
    if state in {"Z", "X"}:
        return None
    return Vitals(pid, state, parent, cpu / TICKS, started, read_so_far(pid), user)


def read_so_far(pid: int) -> int | None:
    try:
        with open(f"{PROC}/{pid}/io", "rb", buffering=0) as file:  # noqa: PTH123
            return int(file.read(64).split(None, 2)[1])
    except (OSError, ValueError, IndexError):
        return None


def pids() -> Iterator[int]:
    """Every process number there is."""
    return (int(entry) for entry in os.listdir(PROC) if entry.isdigit())  # noqa: PTH208
