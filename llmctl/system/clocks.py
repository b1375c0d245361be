"""Two clocks of the kernel whose difference tells that the machine slept. Neither is the wall clock, which jumps."""

from __future__ import annotations

import time

# Reading two clocks one after the other never takes as long.
SLEEP_SECONDS = 1.0


def slept_seconds() -> float:
    """How long this machine has been suspended since it booted: CLOCK_BOOTTIME counts it, CLOCK_MONOTONIC does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def since_boot_seconds() -> float:
    """Since this machine booted, the time that it was suspended with it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def resumed(before_seconds: float, now_seconds: float) -> bool:
    """Whether the machine was suspended between two readings of `slept_seconds`."""
    return now_seconds - before_seconds > SLEEP_SECONDS
