"""What a token and a prompt read, by the runner's own lines and the model's header."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.checks.facts.models import ResidentFacts
from llmctl.core.memory.needs import Model
from llmctl.core.placement import Buffer
from llmctl.workflows.gather.speed import of_bytes, read_of
from tests.memory import published
from tests.memory.computing import shape_of

MIB = 1 << 20
ONE = ResidentFacts("m", None, frozenset(), None, 4096, None, None, None, None, 7, ())
ON_CARD = (Buffer("CUDA0", "model", 6000 * MIB), Buffer("CUDA0", "KV", 200 * MIB))
ON_HOST = (Buffer("CPU_Mapped", "model", 12000 * MIB), Buffer("CPU", "KV", 200 * MIB))


@pytest.mark.parametrize(
    ("lines", "devices", "crosses", "copied"),
    [
        (ON_CARD, ("CUDA0",), True, False),
        ((*ON_CARD, *ON_HOST), ("CUDA0",), True, True),
        # Without a card nothing crosses a link.
        (ON_HOST, (), False, False),
    ],
)
def test_what_goes_to_a_card(
    lines: tuple[Buffer, ...], devices: tuple[str, ...], crosses: bool, copied: bool, tmp_path: Path
) -> None:
    path = published.write(published.MODELS["qwen3-30b-a3b"], tmp_path / "m.gguf")
    model = Model(shape_of(path), path.stat().st_size)
    fields = of_bytes(model, read_of(model, lines, devices, ONE, 1), ONE, None)
    assert (fields["crossing_bytes"] > 0) == crosses
    assert (fields["host_weights_bytes"] > 0) == copied
    if copied:
        # All of it but the embedding table for a batch, and of the 128 experts 8 for a token.
        assert fields["host_weights_bytes"] == 12000 * MIB - model.weights("cuda").input_bytes()
        assert fields["host_read_bytes"] < fields["host_weights_bytes"] / 5
