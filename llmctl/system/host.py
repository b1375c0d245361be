"""The host's memory, from the kernel."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def memory_bytes() -> tuple[int | None, int | None]:
    """All of it, and what can be had without swapping (MemAvailable); None where the kernel does not say."""
    total, available = figures("MemTotal", "MemAvailable")
    return total, available


def free_swap_bytes() -> int | None:
    """What is free of the swap space; None where the kernel does not say."""
    (free,) = figures("SwapFree")
    return free


def figures(*names: str) -> tuple[int | None, ...]:
    """Lines of /proc/meminfo, in bytes."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return tuple(None for _ in names)
    found = {name: rest for name, _, rest in (line.partition(":") for line in lines)}

    def kib(name: str) -> int | None:
        number = found.get(name, "").strip().partition(" ")[0]
        return int(number) * 1024 if number.isdecimal() else None

    return tuple(kib(name) for name in names)
