"""What CUDA adds to ggml's own rules, as read in ggml/src/ggml-cuda of b10760, and the room that is left for the rest.

Only published logs have been compared with it, so the figures are bounds.
"""

from __future__ import annotations

from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.node import QUANTIZED, Node
from llmctl.core.memory.settings import Settings
from llmctl.core.memory.shape import Shape

_PADDING = 128
_MOST_FUSED = 15
_ROUNDING = 1 << 17
_FLASH_TYPES = {"f16", "bf16", "q8_0", "q4_0"}
_FLASH_LENGTHS = {40, 64, 72, 80, 96, 112, 128, 256}


def flash_attention(shape: Shape, settings: Settings) -> bool | None:
    """Whether CUDA computes it (ggml_cuda_get_best_fattn_kernel, fattn.cu:358). None: the host would have to.

    With `auto` it is then switched off, but for quantized values, which need it.
    """
    kinds = {settings.cache_k, settings.cache_v} if shape.has_cache else {"f16"}
    lengths = set(shape.key_lengths) | set(shape.value_lengths)
    if len(kinds) == 1 and kinds <= _FLASH_TYPES and len(lengths) == 1 and lengths <= _FLASH_LENGTHS:
        return True
    return False if settings.flash_attention == "auto" and settings.cache_v not in QUANTIZED else None


def adjusted(build: Build, nodes: list[Node]) -> list[Node]:
    """The nodes as CUDA allocates them: bigger flash attentions, and what fused sums of experts read kept to their end.

    ggml_backend_cuda_graph_optimize, ggml-cuda.cu:4499.
    """
    until = {id(total): (results, weights) for total, results, weights in build.expert_sums}
    fused = 2 <= build.shape.experts_used <= _MOST_FUSED
    ordered: list[Node] = []
    for node in nodes:
        ordered.append(node)
        if node.op == "flash_attn" and node.device:
            node.size = _with_half_copies(node)
        elif fused and node.device and id(node) in until:
            results, weights = until[id(node)]
            kept = Node("none", results.shape, [results, weights], base=results, size=0)
            kept.device = node.device
            ordered.append(kept)
    return ordered


def _with_half_copies(node: Node) -> int:
    """A flash attention over batches works on f16 copies of keys and values of other types.

    ggml_cuda_flash_attn_ext_get_f16_extra_data, fattn-common.cuh.
    """
    size = node.size
    for source in node.sources[1:3]:
        if source.kind != "f16":
            size = -(-size // _PADDING) * _PADDING
            elements = 2
            for count in source.shape:
                elements *= count
            size += elements
    return size


def bounded(build: Build, sizes: dict[int, int]) -> dict[int, int]:
    """The sizes and what a published log of another build had on top of them.

    Qwen3 4B took 85.01 MiB where 83.01 are computed: the keys of a batch as f32; on the host 28.02 against 18.01: two
    embeddings of a batch. Three others agree: Qwen3 0.6B in Q8_0 took 32.09 MiB, and 41.64 with some layers on the
    host; OLMoE 64.09, but for its fused experts.
    """
    shape, batch = build.shape, 4 * build.tokens
    widest = max(shape.key_width(layer) + shape.value_width(layer) for layer in range(shape.layers))
    on_gpu, on_host = batch * widest, batch * 2 * shape.embedding_length + _ROUNDING
    return {device: size + (on_gpu if device else on_host) if size else 0 for device, size in sizes.items()}
