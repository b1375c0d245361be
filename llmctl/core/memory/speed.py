"""How fast a model can answer: what memory must be read for a token, over how fast it can be read.

A roofline, not a measurement. It is given as a range: the upper end reads at the stated peak, the lower end at the
share of it that kernels reach. Published: Llama 3.3 70B Q4_K_M on an RTX 3090, 3.61 and 3.68 tokens/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.memory.bandwidth import GIGA, HOST_GB_PER_SECOND, card_of
from llmctl.core.memory.token_time import Read, Span, arithmetic_seconds, token_time, usual_link_seconds


@dataclass(frozen=True)
class Speed:
    """Tokens a second while answering, and seconds until the first token of a prompt. `basis` says whence."""

    tokens_per_second_low: float | None
    tokens_per_second_high: float | None
    prompt_tokens: int | None
    first_token_seconds_low: float | None
    first_token_seconds_high: float | None
    basis: str


def expect(read: Read, names: Sequence[str]) -> Speed | None:
    """None where a card that is needed is unknown. A token goes through the devices one after the other. The slow end
    has a full context to read as well."""
    time = token_time(read, names)
    if time is None:
        return None
    cards = [card_of(name) for name in names]
    token = Span(time.gpu.least + time.host.least, time.gpu.most + time.host.most + time.cache.most)
    prompt = _prompt(read, cards)
    first = None if prompt is None else prompt.and_then(token)
    return Speed(
        round(1 / token.most, 2) if token.most else None,
        round(1 / token.least, 2) if token.least else None,
        read.prompt_tokens,
        None if first is None else round(first.least, 2),
        None if first is None else round(first.most, 2),
        _basis(read, [card for card in cards if card]),
    )


def _prompt(read: Read, cards: Sequence[tuple[int, int] | None]) -> Span | None:
    """The prompt is arithmetic on a GPU; layers in host memory are copied to it once for each batch, at the slow end
    with all of their experts."""
    work = arithmetic_seconds(read.parameters * read.prompt_tokens, cards)
    if work is None:
        return None
    batches = -(-read.prompt_tokens // read.batch)
    least, most = (usual_link_seconds(size * batches) for size in (read.host_bytes, read.host_weights_bytes))
    return work.and_then(Span(least.least, most.most))


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
