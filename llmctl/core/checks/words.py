"""Figures and lists as findings say them."""

from __future__ import annotations

from collections.abc import Sequence

MIB, GIB = 1 << 20, 1 << 30
MOST_NAMES = 4


def size(count_bytes: int) -> str:
    """Bytes as MiB or GiB."""
    if count_bytes >= 100 * GIB:
        return f"{count_bytes / GIB:,.0f} GiB"
    return f"{count_bytes / GIB:.1f} GiB" if count_bytes >= GIB else f"{count_bytes / MIB:,.0f} MiB"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def names(found: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(found) - MOST_NAMES
    return ", ".join(found[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
