"""Where the time of a token and of a prompt goes: bytes over the bandwidths of memories and links.

Each as a range, from the stated peak to the share of it that is reached (core/memory/bandwidth.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.memory.bandwidth import (
    ARITHMETIC_SHARE_OF_PEAK,
    GIGA,
    GPU_SHARE_OF_PEAK,
    HOST_GB_PER_SECOND,
    PCIE_GB_PER_SECOND,
    card_of,
)
from llmctl.core.memory.cache import kv_bytes
from llmctl.core.memory.settings import PADDING, Placement, Settings, padded
from llmctl.core.memory.shape import Shape

# A prompt's batch of so many tokens is computed on a GPU also for the layers in host memory, whose weights are copied
# there each time (llama.cpp b10760 ggml/src/ggml-cuda/ggml-cuda.cu:5540,5711, ggml/src/ggml-backend.cpp:970).
COPYING_BATCH = 32
# GB/s of one lane by the generation of PCIe, after its coding (8b/10b, 128b/130b, and flits from 6 on).
LANE_GB_PER_SECOND = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
# As the 12 GB/s that are usual on 16 lanes of the third generation.
LINK_SHARE_OF_PEAK = (0.76, 1.0)
# Between devices go 32-bit numbers.
ACTIVATION_BYTES = 4


@dataclass(frozen=True)
class Span:
    """From the least to the most that it can be."""

    least: float
    most: float

    def and_then(self, other: Span) -> Span:
        return Span(self.least + other.least, self.most + other.most)

    def over(self, whole: float) -> Span:
        """As a share of a whole, never more than all of it."""
        return Span(min(1.0, self.least / whole), min(1.0, self.most / whole))


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


@dataclass(frozen=True)
class TokenTime:
    """Seconds that a token takes to read the weights on GPUs, those in host memory, and the cache."""

    gpu: Span
    host: Span
    cache: Span


def token_time(read: Read, names: Sequence[str]) -> TokenTime | None:
    """By the cards' names; None where one that is needed is not known. The cache is as full as `read` says."""
    cards = [card_of(name) for name in names]
    if any(card is None and size for card, size in zip(cards, read.gpu_bytes, strict=True)):
        return None

    def on_gpus(sizes: Sequence[int]) -> Span:
        at_peak = sum(size / (card[0] * GIGA) for size, card in zip(sizes, cards, strict=True) if card)
        return over(at_peak, GPU_SHARE_OF_PEAK)

    return TokenTime(
        on_gpus(read.gpu_bytes),
        between(read.host_bytes, HOST_GB_PER_SECOND),
        on_gpus(read.gpu_cache_bytes).and_then(between(read.host_cache_bytes, HOST_GB_PER_SECOND)),
    )


def over(at_peak: float, shares: tuple[float, float]) -> Span:
    """Seconds at the peak, and at the share of it that is reached. `shares`: the low end first."""
    return Span(at_peak / shares[1], at_peak / shares[0])


def between(size_bytes: float, gb_per_second: tuple[float, float]) -> Span:
    """Seconds for so many bytes, at two speeds, the slower first."""
    slow, fast = gb_per_second
    return Span(size_bytes / (fast * GIGA), size_bytes / (slow * GIGA))


def attended(shape: Shape, settings: Settings, tokens: int) -> float:
    """The part of a full cache that a token reads after so many others: whole pages of the cells in use, of sliding
    layers no more than their window (llama.cpp b10760 src/llama-kv-cache.cpp:1250)."""
    everywhere = Placement.last(shape.layers, shape.layers + 1)
    whole = sum(kv_bytes(shape, settings, everywhere, sliding=False).values())
    window = sum(kv_bytes(shape, settings, everywhere, sliding=True).values())
    if not whole + window:
        return 0.0
    used = padded(max(1, tokens), PADDING)
    read = whole * min(1.0, used / settings.cells) + window * min(1.0, used / settings.window_cells(shape.window))
    return read / (whole + window)


def crossing_bytes(shape: Shape, context: int) -> int:
    """What goes between host and cards for one token, at most: its activations into every layer and out of it, where
    layers lie on both sides, the masks of both kinds of attention (32-bit, or 16-bit with flash attention), and what
    each word of the vocabulary scored (llama.cpp b10760 src/llama-graph.cpp:29-45 and src/llama-context.cpp:1883)."""
    return (2 * shape.layers * shape.embedding_length + 2 * context + shape.vocabulary) * ACTIVATION_BYTES


def prompt_seconds(parameters: int, names: Sequence[str]) -> Span | None:
    """The arithmetic of one token of a prompt, by the slowest of the cards; None where one is not known."""
    cards = [card_of(name) for name in names]
    return None if None in cards else arithmetic_seconds(parameters, cards)


def arithmetic_seconds(parameters: int, cards: Sequence[tuple[int, int] | None]) -> Span | None:
    """Two operations with each parameter, by the slowest of the cards that are known; None where none is."""
    known = [card[1] for card in cards if card]
    return over(2.0 * parameters / (min(known) * 1e12), ARITHMETIC_SHARE_OF_PEAK) if known else None


def copies(tokens: int, batch: int) -> int:
    """How often the weights in host memory are copied to a card for a prompt."""
    whole, rest = divmod(tokens, batch)
    return whole + (rest >= COPYING_BATCH)


def link_seconds(size_bytes: float, generation: int | None, width: int | None) -> Span | None:
    """To copy so much over PCIe; None where the link is not known."""
    lane = LANE_GB_PER_SECOND.get(generation or 0)
    if lane is None or not width:
        return None
    return over(size_bytes / (lane * width * GIGA), LINK_SHARE_OF_PEAK)


def usual_link_seconds(size_bytes: float) -> Span:
    return between(size_bytes, PCIE_GB_PER_SECOND)
