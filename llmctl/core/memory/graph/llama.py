"""Llama 2, 3.x, Mistral, Mixtral (src/models/llama.cpp), and their relatives with one more norm."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build, Node
from llmctl.core.memory.graph.layers import experts, gated, qkv


def graph(build: Build) -> None:
    """`llama`, `mistral3`, `qwen2`, `qwen3`, `qwen3moe`: the header's tensors say which parts there are."""
    x = build.embedding()
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        x = build.norm(x, layer, "attn_norm")
        q, k, v = qkv(build, x, layer)
        x = attention(layer, build.rope(_normed(build, q, layer, "attn_q_norm")), _key(build, k, layer), v)
        x, residual = build.only_outputs(layer, x, residual)
        x = residual = build.add(x, residual)
        x = build.norm(x, layer, "ffn_norm")
        x = experts(build, x, layer) if build.has(layer, "ffn_gate_inp.weight") else gated(build, x, layer)
        x = build.layer_output(layer, build.add(x, residual))
    x = build.logits(build.output_norm(x))
    if build.shape.has("output.bias"):
        x = build.add(x, build.weight("output.bias", build.placement.output))
    build.finish(x)


def _key(build: Build, k: Node, layer: int) -> Node:
    return build.rope(_normed(build, k, layer, "attn_k_norm"))


def _normed(build: Build, x: Node, layer: int, name: str) -> Node:
    return build.norm(x, layer, name) if build.has(layer, name + ".weight") else x
