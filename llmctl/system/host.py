"""The host's memory, from the kernel."""

from __future__ import annotations

from pathlib import Path


def memory_bytes() -> tuple[int | None, int | None]:
    """All of it, and what can be had without swapping (MemAvailable); None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    found = {name: rest for name, _, rest in (line.partition(":") for line in lines)}

    def kib(name: str) -> int | None:
        number = found.get(name, "").strip().partition(" ")[0]
        return int(number) * 1024 if number.isdecimal() else None

    return kib("MemTotal"), kib("MemAvailable")
