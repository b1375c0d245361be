"""BERT and its relatives by Nomic, dense and with experts (src/models/bert.cpp)."""

from __future__ import annotations

from llmctl.core.memory.graph.attention import Attention
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.layers import experts, gated, plain, qkv
from llmctl.core.memory.graph.node import Node


def graph(build: Build) -> None:
    """No cache; a norm after each part; positions by table (bert) or by rope."""
    x = _embedded(build)
    attention = Attention(build)
    for layer in build.layers:
        residual = x
        q, k, v = qkv(build, x, layer)
        if build.shape.architecture != "bert":
            q, k = build.rope(q), build.rope(k)
        x = attention(layer, q, k, v)
        x, residual = build.only_outputs(layer, x, residual)
        x = build.norm(build.add(x, residual), layer, "attn_output_norm", "norm")
        x = build.add(_feed_forward(build, x, layer), x)
        x = build.layer_output(layer, build.norm(x, layer, "layer_output_norm", "norm"))
    build.embedded = x
    build.finish(x)


def _embedded(build: Build) -> Node:
    """The sum of the token's, the first type's and the position's embedding."""
    x = build.embedding()
    if build.shape.has("token_types.weight"):
        types = build.weight("token_types.weight", 0)
        x = build.add(x, build.view(types, types.shape[:1]))
    if build.shape.architecture == "bert":
        x = build.add(build.get_rows(build.weight("position_embd.weight", 0), build.positions), x)
    return build.norm(x, 0, "token_embd_norm", "norm", common=True)


def _feed_forward(build: Build, x: Node, layer: int) -> Node:
    if build.has(layer, "ffn_gate_inp.weight"):
        return experts(build, x, layer, normalized=False)
    if build.has(layer, "ffn_gate.weight"):
        return gated(build, x, layer)
    return plain(build, x, layer)
