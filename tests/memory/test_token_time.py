"""Where the time of a token and of a prompt goes, by arithmetic that can be done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.memory.settings import Settings
from llmctl.core.memory.token_time import (
    Read,
    Span,
    attended,
    copies,
    crossing_bytes,
    link_seconds,
    prompt_seconds,
    token_time,
)
from tests.memory import published
from tests.memory.computing import shape_of

GIGA = 1_000_000_000
READ = Read((9_360_000_000, 0), 6 * GIGA, (936_000_000, 0), 0, 8 * GIGA, 512, 1024, 6 * GIGA)


def test_bytes_over_bandwidths() -> None:
    found = token_time(READ, ("NVIDIA GeForce RTX 3090", "a card of nobody"))
    assert found is not None
    assert (found.gpu.least, found.gpu.most) == pytest.approx((0.01, 0.01 / 0.6))
    assert (found.host.least, found.host.most) == pytest.approx((6 / 80, 6 / 60))
    assert (found.cache.least, found.cache.most) == pytest.approx((0.001, 0.001 / 0.6))
    # A card that holds something and is not known: nothing is.
    assert token_time(READ, ("a card of nobody", "RTX 3090")) is None
    assert found.host.over(0.08) == Span(pytest.approx(0.9375), 1.0)


@pytest.mark.parametrize(
    ("name", "tokens", "part"),
    [
        # Three layers keep 2,048 cells and fifteen 1,024, which at 18 layers of equal width is 6 and 15 parts.
        ("gemma-3-270m", 500, (6 * 512 / 2048 + 15 * 512 / 1024) / 21),
        ("gemma-3-270m", 1000, (6 * 1024 / 2048 + 15) / 21),
        ("gemma-3-270m", 2000, 1.0),
        ("llama-3.2-1b", 1000, 0.5),
        ("llama-3.2-1b", 0, 256 / 2048),
        ("llama-3.2-1b", 9999, 1.0),
    ],
)
def test_the_part_of_the_cache_that_is_read(name: str, tokens: int, part: float, tmp_path: Path) -> None:
    shape = shape_of(published.write(published.MODELS[name], tmp_path / "m.gguf"))
    assert attended(shape, Settings(2048), tokens) == pytest.approx(part)


def test_what_crosses_for_a_token(tmp_path: Path) -> None:
    shape = shape_of(published.write(published.MODELS["llama-3.3-70b"], tmp_path / "m.gguf"))
    assert crossing_bytes(shape, 4096) == (2 * 80 * 8192 + 2 * 4096 + 128256) * 4


@pytest.mark.parametrize(
    ("generation", "width", "least"),
    [(3, 16, 1 / 15.76), (4, 16, 1 / 31.504), (4, 4, 1 / 7.876), (1, 16, 1 / 4), (None, 16, None), (4, None, None)],
)
def test_a_link_by_generation_and_width(generation: int | None, width: int | None, least: float | None) -> None:
    found = link_seconds(GIGA, generation, width)
    assert found == (None if least is None else Span(pytest.approx(least), pytest.approx(least / 0.76)))


@pytest.mark.parametrize(
    ("tokens", "times"), [(20, 0), (32, 1), (512, 1), (530, 1), (543, 1), (544, 2), (1024, 2), (1100, 3)]
)
def test_weights_are_copied_for_batches_of_32_tokens_and_more(tokens: int, times: int) -> None:
    assert copies(tokens, 512) == times


def test_the_arithmetic_of_a_prompt() -> None:
    found = prompt_seconds(8 * GIGA, ("RTX 3090", "RTX 4090"))
    assert found is not None
    assert (found.least, found.most) == pytest.approx((16 / 142_000 / 0.6, 16 / 142_000 / 0.15))
    assert prompt_seconds(8 * GIGA, ("RTX 3090", "a card of nobody")) is None
