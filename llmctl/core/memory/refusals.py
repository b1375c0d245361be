"""Settings that llama.cpp b10760 does not start with."""

from __future__ import annotations

from llmctl.core.memory.graph.node import QUANTIZED, TYPES
from llmctl.core.memory.settings import Settings
from llmctl.core.memory.shape import Shape

# ggml/src/ggml.c:6544, those above the smallest graph.
_HASH_SIZES = (1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101)


def refusal(shape: Shape, settings: Settings) -> str | None:
    """Why llama_init_from_model refuses (src/llama-context.cpp:3654), as a clause; None where it does not."""
    if not shape.has_cache:
        return None
    if settings.cache_v in QUANTIZED and not settings.flash:
        return f"a {settings.cache_v} cache of the values needs flash attention"
    if shape.mla and settings.cache_k != settings.cache_v:
        return "this model's keys and values need the same cache type"
    if settings.flash:
        for kind, lengths in ((settings.cache_k, shape.key_lengths), (settings.cache_v, shape.value_lengths)):
            block = TYPES[kind][0]
            for length in lengths[: shape.graph_layers]:
                if length % block:
                    return f"the cache type {kind} has blocks of {block}, and this model's heads are {length} long"
    return None


def too_many_nodes(shape: Shape, nodes: int, leafs: int) -> str | None:
    """llama.cpp sizes its table of nodes by the model's tensors, and aborts where the graph does not fit in.

    Phi 4 with a quantized cache and two slots is such a case: few tensors, many operations.
    """
    least = max(1024, 8 * len(shape.tensors))
    room = next((size for size in _HASH_SIZES if size >= least), least)
    return f"the engine has room for {room} nodes, and this graph has {nodes + leafs}" if nodes + leafs > room else None
