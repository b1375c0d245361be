"""How fast cards, host memory and the link between them are, and which share of that is reached."""

from __future__ import annotations

import re

GIGA = 1e9
# Memory bandwidth (GB/s) and 16-bit tensor arithmetic (TFLOP/s, dense), from the makers' data sheets.
CARDS = {
    "RTX 3060": (360, 51),
    "RTX 3080": (760, 119),
    "RTX 3090": (936, 142),
    "RTX 4060 Ti": (288, 88),
    "RTX 4060": (272, 60),
    "RTX 4070": (504, 117),
    "RTX 4080": (717, 195),
    "RTX 4090": (1008, 330),
    "RTX 5070 Ti": (896, 176),
    "RTX 5080": (960, 225),
    "RTX 5090": (1792, 419),
    "RTX A6000": (768, 155),
    "RTX 6000 Ada": (960, 364),
    "A100": (1555, 312),
    "A40": (696, 150),
    "L40S": (864, 362),
    "L4": (300, 121),
    "H100": (3350, 989),
    "H200": (4800, 989),
    "T4": (320, 65),
}
# For a GPU of which only the size is known: the card of that size that most people have.
USUAL = ((7.0, "RTX 4060"), (11.0, "RTX 3060"), (15.0, "RTX 4060 Ti"), (22.0, "RTX 3090"), (30.0, "RTX 5090"))
LARGE = (44.0, "RTX A6000")
GIB = 1 << 30
# Two channels of DDR4-3200 to DDR5-5600 as they can be read.
HOST_GB_PER_SECOND = (60.0, 80.0)
PCIE_GB_PER_SECOND = (12.0, 25.0)
GPU_SHARE_OF_PEAK = (0.6, 1.0)
ARITHMETIC_SHARE_OF_PEAK = (0.15, 0.6)


def card_of(name: str) -> tuple[int, int] | None:
    """Bandwidth and arithmetic of a card by its name; None where it is not known here."""
    plain = re.sub(r"[\s-]+", " ", name)
    found = [model for model in CARDS if re.search(rf"\b{model}\b", plain)]
    return CARDS[max(found, key=len)] if found else None


def usual_card(free_bytes: int) -> str:
    """The name of the card that a size stands for."""
    fitting = [name for least, name in (*USUAL, LARGE) if free_bytes >= least * GIB]
    return fitting[-1] if fitting else USUAL[0][1]
