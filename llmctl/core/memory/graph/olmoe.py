"""OLMoE (src/models/olmoe.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import experts, heads


def graph(build: Build) -> None:
    """Queries and keys are normed over all heads at once; the weights of the experts are not divided by their sum."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = (build.linear(x, layer, f"attn_{name}") for name in "qkv")
        q, k = (build.norm(part, layer, f"attn_{name}_norm") for part, name in ((q, "q"), (k, "k")))
        q, k, v = heads(build, layer, q, k, v)
        x = attention(layer, build.rope(q), build.rope(k), v)
        x, residual = build.only_outputs(layer, x, residual)
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = experts(build, x, layer, normalized=False)
        x = build.layer_output(layer, build.add(x, residual))
    build.finish(build.logits(build.output_norm(x)))
