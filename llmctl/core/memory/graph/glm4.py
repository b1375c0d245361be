"""GLM-4 of April 2025: 9B and 32B, GLM-Z1 (src/models/glm4.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import gated_in_one, qkv


def graph(build: Build) -> None:
    """Norms before and after each part, gate and up in one matrix."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        x = attention(layer, build.rope(q), build.rope(k), v)
        x, residual = build.only_outputs(layer, x, residual)
        x = build.norm(x, layer, "post_attention_norm")
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = gated_in_one(build, x, layer)
        x = build.norm(x, layer, "post_ffw_norm")
        x = build.layer_output(layer, build.add(x, residual))
    build.finish(build.logits(build.output_norm(x)))
