"""Llama 2, 3.x, Mistral, Mixtral (src/models/llama.cpp), and their relatives with one more norm."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import experts, gated, qkv
from llmctl.core.memory.graph.node import Node


def graph(build: Build) -> None:
    """`llama`, `mistral3`, `qwen2`, `qwen3`, `qwen3moe`: the header's tensors say which parts there are."""
    x = build.embedding()
    attention = Attention(build)
    temperature = _temperature(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        q, k = (build.rope(_normed(build, part, layer, name)) for part, name in ((q, "q"), (k, "k")))
        x = attention(layer, q if temperature is None else build.mul(q, temperature), k, v)
        x, residual = build.only_outputs(layer, x, residual)
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = experts(build, x, layer) if build.has(layer, "ffn_gate_inp.weight") else gated(build, x, layer)
        x = build.layer_output(layer, build.add(x, residual))
    x = build.logits(build.output_norm(x))
    if build.shape.has("output.bias"):
        x = build.add(x, build.weight("output.bias", build.placement.output))
    build.finish(x)


def _normed(build: Build, x: Node, layer: int, name: str) -> Node:
    return build.norm(x, layer, f"attn_{name}_norm") if build.has(layer, f"attn_{name}_norm.weight") else x


def _temperature(build: Build) -> Node | None:
    """Ministral 3 scales its queries by their position."""
    if build.shape.architecture != "mistral3" or not build.shape.number("attention.temperature_scale"):
        return None
    return build.input((1, 1, build.tokens))
