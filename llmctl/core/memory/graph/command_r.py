"""Command R, R+, R7B and Aya (src/models/command-r.cpp, cohere2.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import gated, qkv
from llmctl.core.memory.graph.node import Node


def graph(build: Build) -> None:
    """One norm feeds the attention and the feed-forward network, which stand side by side."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = normed = build.norm(x, layer, "attn_norm", "norm")
        q, k, v = qkv(build, x, layer)
        attended = attention(layer, _turned(build, q, layer, "q"), _turned(build, k, layer, "k"), v)
        attended, residual, normed = build.only_outputs(layer, attended, residual, normed)
        x = gated(build, normed, layer)
        x = build.layer_output(layer, build.add(build.add(x, residual), attended))
    x = build.logits(build.output_norm(x, "norm"))
    if build.shape.number("logit_scale"):
        x = build.scale(x)
    build.finish(x)


def _turned(build: Build, x: Node, layer: int, name: str) -> Node:
    """Rope; in Cohere 2 only the sliding layers have it."""
    if build.has(layer, f"attn_{name}_norm.weight"):
        x = build.norm(x, layer, f"attn_{name}_norm", "norm")
    return build.rope(x) if build.shape.sliding[layer] or not build.shape.window else x
