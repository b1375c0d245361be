"""What `doctor --explain` looks like."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from llmctl.output.text import pairs, size

if TYPE_CHECKING:
    from llmctl.workflows.explain import Explained, Misbelief

BASES = {"header": "from its header", "formula": "by the formula", "stated": "as published", "nvml": "as NVML says it"}


def explained_lines(found: Explained, width: int) -> list[str]:
    whose = f"the header of {found.model}" if found.model else "formulas, as no header of the profile's model is here"
    lines = textwrap.wrap(f"profile {found.profile}, {found.context:,} tokens; figures from {whose}", width)
    for each in found.misbeliefs:
        lines += ["", *misbelief_lines(each, width)]
    return lines


def misbelief_lines(each: Misbelief, width: int) -> list[str]:
    rows = [
        ("true", each.truth),
        ("here", each.here),
        *((size(figure.value_bytes), f"{figure.what} ({BASES[figure.basis]})") for figure in each.figures),
        ("source", each.source),
    ]
    head = textwrap.wrap(f'"{each.belief}"', width)
    return [*head, *(f"  {line}" for line in pairs(rows, width - 2))]
