"""Amounts of memory as people write them in profiles and flags: 1024MiB, 24GiB."""

from __future__ import annotations

import re

UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(KiB|MiB|GiB|TiB)$"


def parse_size(text: str) -> int | None:
    """Bytes, rounded down to a whole byte; None when `text` is no such amount."""
    match = re.fullmatch(PATTERN.strip("^$"), text)
    if match is None:
        return None
    unit = UNITS[text[-3:]]
    whole, _, fraction = text[:-3].partition(".")
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def write_size(count_bytes: int) -> str:
    """The shortest text for an amount, rounded down to whole KiB."""
    fitting = (name for name in reversed(UNITS) if count_bytes and count_bytes % UNITS[name] == 0)
    unit = next(fitting, "KiB")
    return f"{count_bytes // UNITS[unit]}{unit}"
