"""Other quantizations of a model against what llama-quantize says it would make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmctl.core.memory.quantize import MIXTURES, quantized
from llmctl.core.memory.shape import from_gguf
from llmctl.system.gguf_file import header
from tests.memory import published

RECORD = json.loads((Path(__file__).parent / "cells" / "quantize.json").read_text())["quant_size_mib"]
MIB = 1 << 20


@pytest.mark.parametrize("name", RECORD)
def test_each_quantization_has_the_size_that_llama_quantize_says(name: str, tmp_path: Path) -> None:
    shape = from_gguf(header(published.write(published.MODELS[name], tmp_path / "model.gguf")))
    sizes = {
        mixture: sum(tensor.size_bytes or 0 for tensor in quantized(shape, mixture).tensors) / MIB
        for mixture in MIXTURES
    }
    assert {mixture: round(size, 2) for mixture, size in sizes.items()} == pytest.approx(RECORD[name], abs=0.0101)
