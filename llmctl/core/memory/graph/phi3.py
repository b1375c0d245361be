"""Phi 3, 3.5 and 4 (src/models/phi3.cpp). The sliding window that some headers name is switched off there."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import experts, gated_in_one, qkv


def graph(build: Build) -> None:
    """q, k, v in one matrix, gate and up in one matrix; queries are scaled before the attention."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        q, k = build.rope(q), build.rope(k)
        x = attention(layer, build.scale(q), k, v)
        x, residual = build.only_outputs(layer, x, residual)
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = experts(build, x, layer) if build.has(layer, "ffn_gate_inp.weight") else gated_in_one(build, x, layer)
        x = build.layer_output(layer, build.add(residual, x))
    x = build.logits(build.output_norm(x))
    if build.shape.has("output.bias"):
        x = build.add(x, build.weight("output.bias", build.placement.output))
    build.finish(x)
