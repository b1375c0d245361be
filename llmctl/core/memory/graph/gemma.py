"""Gemma 2, Gemma 3 and EmbeddingGemma (src/models/gemma2.cpp, gemma3.cpp, gemma-embedding.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import gated, qkv
from llmctl.core.memory.graph.node import Node


def graph(build: Build) -> None:
    """Norms before and after each part; queries are scaled; sliding and full layers take turns."""
    x = build.scale(build.embedding())
    attention = Attention(build, soft_cap=build.shape.architecture == "gemma2")
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        q, k = (build.rope(_normed(build, part, layer, name)) for part, name in ((q, "q"), (k, "k")))
        x = attention(layer, build.scale(q), k, v)
        x, residual = build.only_outputs(layer, x, residual)
        x = build.norm(x, layer, "post_attention_norm")
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = gated(build, x, layer)
        x = build.norm(x, layer, "post_ffw_norm")
        x = build.layer_output(layer, build.add(x, residual))
    x = build.output_norm(x)
    if build.shape.architecture != "gemma-embedding":
        x = _capped(build, build.logits(x))
    build.finish(x)


def _normed(build: Build, x: Node, layer: int, name: str) -> Node:
    return build.norm(x, layer, f"attn_{name}_norm") if build.has(layer, f"attn_{name}_norm.weight") else x


def _capped(build: Build, x: Node) -> Node:
    """cap * tanh(logits / cap)"""
    default = 30.0 if build.shape.architecture == "gemma2" else 0.0
    if not build.shape.number("final_logit_softcapping", default):
        return x
    return build.scale(build.same("unary", build.scale(x)))
