"""Plain text blocks that every verb's renderer is made of. Figures leave their base units only here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNKNOWN = "unknown"


# Without those that a text is laid out with: line feeds, tabs, and the return before a line feed.
_DRIVING = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]|\\r(?!\\n)"
)


def visible(text: str) -> str:
    r"""Text in which what could drive a terminal is written out (`\x1b`), as names and answers from outside may hold
    anything: control characters, and those that change the order in which the others are shown."""
    return _DRIVING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(line: str) -> str:
    """The same document, with what could drive a terminal as JSON escapes it. `json` itself does so below 32 only."""
    return _DRIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def size(count_bytes: int | None) -> str:
    """Bytes as MiB or GiB. Rounded to what is shown, never in anyone's favour by more than that digit."""
    if count_bytes is None:
        return UNKNOWN
    if count_bytes >= 10 * GIB:
        return f"{count_bytes / GIB:.1f} GiB"
    if count_bytes >= GIB:
        return f"{count_bytes / GIB:.2f} GiB"
    if count_bytes >= MIB:
        return f"{count_bytes / MIB:.0f} MiB"
    return f"{count_bytes / KIB:.0f} KiB" if count_bytes >= KIB else f"{count_bytes} B"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 0.3 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def pairs(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Labels in one column, values wrapped beside them; a narrow terminal gets the value below its label."""
    rows = [(label, value) for label, value in rows if value]
    column = max((len(label) for label, _ in rows), default=0) + 2
    lines = []
    for label, value in rows:
        if width < column + 24:
            lines += [
                label,
                *textwrap.wrap(value, max(width - 2, 10), initial_indent="  ", subsequent_indent="  "),
            ]
            continue
        wrapped = textwrap.wrap(value, width - column, break_on_hyphens=False, break_long_words=False) or [""]
        lines.append(f"{label:<{column}}{wrapped[0]}")
        lines += [" " * column + rest for rest in wrapped[1:]]
    return lines


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Aligned columns; when the terminal is too narrow, one block of pairs for each row."""
    columns = [max(len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    if sum(columns) + 2 * (len(columns) - 1) > width and rows:
        blocks = [pairs(zip(header, row, strict=True), width) for row in rows]
        return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]

    def line(cells: Sequence[str]) -> str:
        padded = (f"{cell:<{length}}" for cell, length in zip(cells, columns, strict=True))
        return "  ".join(padded).rstrip()

    return [line(header), *(line(row) for row in rows)]
