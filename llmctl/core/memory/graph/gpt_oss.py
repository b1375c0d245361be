"""gpt-oss (src/models/openai-moe.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import experts, qkv


def graph(build: Build) -> None:
    """Attention with sinks, experts with biases. All rows go through the last layer, whose result stays."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        x = attention(layer, build.rope(q), build.rope(k), v, sinks="attn_sinks.weight")
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "post_attention_norm")
        x = experts(build, x, layer, late_softmax=True, normalized=False)
        x = build.layer_output(layer, build.add(x, residual))
    x.is_output = True
    x = build.output_rows(x)
    build.finish(build.logits(build.output_norm(x)))
