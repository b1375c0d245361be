"""The parts that most families share: the projections to q, k and v, feed-forward networks, experts."""

from __future__ import annotations

from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.node import Node


def qkv(build: Build, x: Node, layer: int) -> tuple[Node, Node, Node]:
    """Three projections, or one whose result is looked at in three places (src/llama-graph.cpp:1616)."""
    if not build.has(layer, "attn_qkv.weight"):
        q, k, v = (build.linear(x, layer, name) for name in ("attn_q", "attn_k", "attn_v"))
        return heads(build, layer, q, k, v)
    whole = build.linear(x, layer, "attn_qkv")
    q, k, v = (build.part(whole, form) for form in _forms(build, layer))
    return q, k, v


def heads(build: Build, layer: int, q: Node, k: Node, v: Node) -> tuple[Node, Node, Node]:
    """Rows seen as heads."""
    q, k, v = (build.reshape(x, *form) for x, form in zip((q, k, v), _forms(build, layer), strict=True))
    return q, k, v


def _forms(build: Build, layer: int) -> tuple[tuple[int, int, int], ...]:
    shape, tokens = build.shape, build.tokens
    key, value, kv_heads = shape.key_lengths[layer], shape.value_lengths[layer], shape.kv_heads[layer]
    return (key, shape.heads[layer], tokens), (key, kv_heads, tokens), (value, kv_heads, tokens)


def gated(build: Build, x: Node, layer: int, *, bias: bool = False) -> Node:
    """down(act(gate(x)) * up(x)); one operation does the activation and the product."""
    up = build.linear(x, layer, "ffn_up", bias=bias)
    gate = build.linear(x, layer, "ffn_gate", bias=bias)
    return build.linear(Node("glu", gate.shape, [gate, up]), layer, "ffn_down", bias=bias)


def gated_in_one(build: Build, x: Node, layer: int) -> Node:
    """The same with gate and up in one matrix."""
    both = build.linear(x, layer, "ffn_up", bias=False)
    half = Node("glu", (both.shape[0] // 2, *both.shape[1:]), [both])
    return build.linear(half, layer, "ffn_down", bias=False)


def plain(build: Build, x: Node, layer: int) -> Node:
    """down(act(up(x)))"""
    x = build.same("unary", build.linear(x, layer, "ffn_up"))
    return build.linear(x, layer, "ffn_down")


def experts(build: Build, x: Node, layer: int, *, late_softmax: bool = False, normalized: bool = True) -> Node:
    """A router, the chosen experts, their weighted sum (src/llama-graph.cpp:1938).

    `late_softmax` weighs the chosen alone; `normalized` divides the weights by their sum.
    """
    chosen, weights = _route(build, x, layer, late_softmax=late_softmax, normalized=normalized)
    width, tokens = x.shape[:2]
    x = build.reshape(x, width, 1, tokens)
    up = _expert(build, x, chosen, layer, "ffn_up_exps")
    if build.has(layer, "ffn_gate_exps.weight"):
        gate = _expert(build, x, chosen, layer, "ffn_gate_exps")
        x = Node("glu", gate.shape, [gate, up])
    else:
        x = build.same("unary", up)
    results = _expert(build, x, chosen, layer, "ffn_down_exps")
    x = build.mul(results, weights)
    build.expand(x)
    x = _sum(build, x, width, tokens)
    build.expert_sums.append((x, results, weights))
    return x


def _route(build: Build, x: Node, layer: int, *, late_softmax: bool, normalized: bool) -> tuple[Node, Node]:
    count, used, tokens = build.shape.experts, build.shape.experts_used, x.shape[1]
    scores = build.linear(x, layer, "ffn_gate_inp")
    if not late_softmax:
        scores = build.same("soft_max", scores)
    order = Node("argsort", scores.shape, [scores], "i32")
    chosen = build.part(order, (used, tokens))
    weights = Node("get_rows", (1, used, tokens), [build.reshape(scores, 1, count, tokens), chosen])
    if late_softmax:
        weights = build.same("soft_max", build.reshape(weights, used, tokens))
        weights = build.reshape(weights, 1, used, tokens)
    if normalized:
        weights = build.reshape(weights, used, tokens)
        total = build.same("clamp", Node("sum_rows", (1, tokens), [weights]))
        weights = build.reshape(build.same("div", weights, total), 1, used, tokens)
    build.expand(weights)
    return chosen, weights


def _expert(build: Build, x: Node, chosen: Node, layer: int, name: str) -> Node:
    x = build.mul_mat_id(build.layer_weight(layer, name + ".weight"), x, chosen)
    if build.has(layer, name + ".bias"):
        x = build.same("add_id", x, build.layer_weight(layer, name + ".bias"), chosen)
    return x


def _sum(build: Build, x: Node, width: int, tokens: int) -> Node:
    parts = [build.view(x, (width, tokens)) for _ in range(build.shape.experts_used)]
    for part in parts:
        build.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = build.add(total, part)
        build.expand(total)
    return build.cont(total, width, tokens) if len(parts) == 1 else total
