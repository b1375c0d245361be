"""How fast a model can answer: what memory must be read for a token, over how fast it can be read.

A roofline, not a measurement. It is given as a range: the upper end reads at the stated peak, the lower end at the
share of it that kernels reach. Published: Llama 3.3 70B Q4_K_M on an RTX 3090, 3.61 and 3.68 tokens/s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Speed:
    """Tokens a second while answering, and seconds until the first token of a prompt. `basis` says whence."""

    tokens_per_second_low: float | None
    tokens_per_second_high: float | None
    prompt_tokens: int | None
    first_token_seconds_low: float | None
    first_token_seconds_high: float | None
    basis: str


@dataclass(frozen=True)
class Read:
    """What one token reads. `gpu_bytes` by GPU, `cache_bytes` of a full context, also in GPU and host parts. Of
    experts a token asks for some, and a batch of a prompt perhaps for all: then `host_weights_bytes` are read."""

    gpu_bytes: tuple[int, ...]
    host_bytes: int
    gpu_cache_bytes: tuple[int, ...]
    host_cache_bytes: int
    parameters: int
    batch: int
    prompt_tokens: int
    host_weights_bytes: int


def card_of(name: str) -> tuple[int, int] | None:
    """Bandwidth and arithmetic of a card by its name; None where it is not known here."""
    plain = re.sub(r"[\s-]+", " ", name)
    found = [model for model in CARDS if re.search(rf"\b{model}\b", plain)]
    return CARDS[max(found, key=len)] if found else None


def usual_card(free_bytes: int) -> str:
    """The name of the card that a size stands for."""
    fitting = [name for least, name in (*USUAL, LARGE) if free_bytes >= least * GIB]
    return fitting[-1] if fitting else USUAL[0][1]


def expect(read: Read, names: Sequence[str]) -> Speed | None:
    """None where a card that is needed is unknown."""
    cards = [card_of(name) for name in names]
    known = [card for card, size in zip(cards, read.gpu_bytes, strict=True) if size]
    if any(card is None for card in known):
        return None
    slow, fast = _token_seconds(read, cards, low=True), _token_seconds(read, cards, low=False)
    first_slow, first_fast = _first_token(read, cards, low=True), _first_token(read, cards, low=False)
    return Speed(
        round(1 / slow, 2) if slow else None,
        round(1 / fast, 2) if fast else None,
        read.prompt_tokens,
        None if first_fast is None else round(first_fast + fast, 2),
        None if first_slow is None else round(first_slow + slow, 2),
        _basis(read, [card for card in cards if card]),
    )


def _token_seconds(read: Read, cards: Sequence[tuple[int, int] | None], *, low: bool) -> float:
    """A token goes through the devices one after the other. The slow end has a full context to read as well."""
    end = 0 if low else 1
    seconds = (read.host_bytes + (read.host_cache_bytes if low else 0)) / (HOST_GB_PER_SECOND[end] * GIGA)
    for card, size, cache in zip(cards, read.gpu_bytes, read.gpu_cache_bytes, strict=True):
        if card:
            seconds += (size + (cache if low else 0)) / (card[0] * GPU_SHARE_OF_PEAK[end] * GIGA)
    return seconds


def _first_token(read: Read, cards: Sequence[tuple[int, int] | None], *, low: bool) -> float | None:
    """The prompt is arithmetic on a GPU; layers in host memory are copied to it once for each batch, at the slow end
    with all of their experts."""
    end = 0 if low else 1
    arithmetic = [card[1] for card in cards if card]
    if not arithmetic:
        return None
    operations = 2.0 * read.parameters * read.prompt_tokens
    batches = -(-read.prompt_tokens // read.batch)
    copied = (read.host_weights_bytes if low else read.host_bytes) * batches / (PCIE_GB_PER_SECOND[end] * GIGA)
    return operations / (min(arithmetic) * ARITHMETIC_SHARE_OF_PEAK[end] * 1e12) + copied


def _basis(read: Read, cards: Sequence[tuple[int, int]]) -> str:
    parts = []
    if cards:
        bandwidth = ", ".join(f"{card[0]}" for card in cards)
        on_gpus = sum(read.gpu_bytes) / GIGA
        parts.append(f"{on_gpus:.1f} GB a token from GPU memory at {bandwidth} GB/s")
    if read.host_bytes:
        slow, fast = HOST_GB_PER_SECOND
        parts.append(f"{read.host_bytes / GIGA:.1f} GB from host memory at {slow:.0f}-{fast:.0f} GB/s")
    return "roofline: " + " and ".join(parts) if parts else "roofline"
