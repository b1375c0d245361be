"""What a model's tensors would be in another quantization: llama-quantize's own choice for each of them.

llama.cpp b10760 src/llama-quant.cpp:119-155 (kinds of tensors), 300-366 (which are quantized at all), 371-425 (rows
that a type does not divide) and 428-680 (the mixtures), without an importance matrix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmctl.core.memory.ggml import tensor_type
from llmctl.core.memory.gguf import Tensor
from llmctl.core.memory.settings import padded
from llmctl.core.memory.shape import Shape

F32, F16, Q4_0, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 6, 7, 8
Q2_K, Q3_K, Q4_K, Q5_K, Q6_K = 10, 11, 12, 13, 14
# The usual ones, the largest first, with the type that most of the tensors get.
MIXTURES = {
    "F16": F16,
    "Q8_0": Q8_0,
    "Q6_K": Q6_K,
    "Q5_K_M": Q5_K,
    "Q5_K_S": Q5_K,
    "Q4_K_M": Q4_K,
    "Q4_K_S": Q4_K,
    "Q4_0": Q4_0,
    "Q3_K_L": Q3_K,
    "Q3_K_M": Q3_K,
    "Q3_K_S": Q3_K,
    "Q2_K": Q2_K,
}
KINDS = ("attn_qkv", "attn_kv_b", "attn_v", "attn_k", "attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
VALUES = frozenset({"attn_qkv", "attn_kv_b", "attn_v"})
KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|position_embd|token_types|ssm_conv1d"
    r"|shortconv\.conv|time_mix_|attn_rel_b|patch_|^v\.|^mm\.|^a\."
)
FALLBACK = {Q2_K: Q4_0, Q3_K: Q4_0, Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}
WHEN_SHARED = {"Q4_K_M": Q6_K, "Q5_K_M": Q6_K}
OUTPUT_MIX = {"Q2_K": Q3_K, "Q3_K_M": Q4_K, "Q3_K_L": Q5_K}
EIGHT_EXPERTS_OUTPUT = frozenset({"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"})


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands in its model: the how-manieth of its kind, of how many."""

    kind: str
    number: int
    count: int

    @property
    def more_bits(self) -> bool:
        """The first and last eighth, and every third in between."""
        eighth = self.count // 8
        return self.number < eighth or self.number >= 7 * self.count // 8 or (self.number - eighth) % 3 == 2


def quantized(shape: Shape, mixture: str) -> Shape:
    """The same model in another quantization."""
    values = [tensor for tensor in shape.tensors if _kind(tensor) in VALUES]
    values.sort(key=lambda tensor: _layer(tensor) or 0)
    order = {tensor.name: number for number, tensor in enumerate(values)}

    def changed(tensor: Tensor) -> Tensor:
        if not _is_quantized(tensor):
            return tensor
        kind = _kind(tensor)
        number, count = order.get(tensor.name, _layer(tensor) or 0), shape.layers
        place = _Place(kind, number, len(values) if kind in VALUES else count)
        return replace(tensor, type_id=_fitting(tensor, _choice(shape, mixture, tensor, place)))

    return replace(shape, tensors=tuple(changed(tensor) for tensor in shape.tensors), quantization=mixture)


def file_bytes(shape: Shape, header_bytes: int) -> int | None:
    """The size of the file; None where a tensor's type is unknown."""
    sizes = [tensor.size_bytes for tensor in shape.tensors]
    known = [padded(size, 32) for size in sizes if size is not None]
    return header_bytes + sum(known) if len(known) == len(sizes) else None


def _is_quantized(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and not KEPT.search(tensor.name)


def _kind(tensor: Tensor) -> str:
    name = tensor.name
    if name in {"output.weight", "token_embd.weight", "per_layer_token_embd.weight"}:
        return name.partition(".")[0]
    suffix = "" if "ffn" in name else ".weight"
    return next((kind for kind in KINDS if kind + (suffix if kind.startswith("attn") else "") in name), "other")


def _layer(tensor: Tensor) -> int | None:
    found = re.match(r"blk\.(\d+)\.", tensor.name)
    return int(found[1]) if found else None


def _choice(shape: Shape, mixture: str, tensor: Tensor, place: _Place) -> int:
    usual = MIXTURES[mixture]
    if tensor_type(usual).block_elements == 1:
        return usual
    kind = place.kind
    if kind == "output" or (kind in {"token_embd", "per_layer_token_embd"} and shape.tied):
        odd = tensor.shape[0] % tensor_type(usual).block_elements
        return Q8_0 if odd or usual == Q8_0 else Q6_K
    if kind in VALUES:
        return _value(shape, mixture, place, usual)
    if kind == "attn_k":
        return Q8_0 if shape.experts == 8 else usual
    if kind == "attn_output":
        if shape.experts == 8:
            return Q5_K if mixture in EIGHT_EXPERTS_OUTPUT else usual
        return OUTPUT_MIX.get(mixture, usual)
    return _down(mixture, place, usual) if kind == "ffn_down" else usual


def _value(shape: Shape, mixture: str, place: _Place, usual: int) -> int:
    chosen = usual
    grouped = shape.kv_heads[0] > 0 and shape.heads[0] // shape.kv_heads[0] >= 4
    if mixture == "Q2_K":
        chosen = Q4_K if grouped else Q3_K
    elif mixture == "Q3_K_M":
        chosen = Q5_K if place.number < 2 else Q4_K
    elif mixture == "Q3_K_L" or (mixture == "Q4_K_S" and place.number < 4):
        chosen = Q5_K
    elif mixture in WHEN_SHARED and place.more_bits:
        chosen = WHEN_SHARED[mixture]
    if _is_70b(shape) and chosen in {Q3_K, Q4_K}:
        chosen = Q5_K
    return Q8_0 if shape.experts == 8 else chosen


def _down(mixture: str, place: _Place, usual: int) -> int:
    first = place.number < place.count // 8
    if mixture == "Q3_K_M":
        return Q5_K if place.number < place.count // 16 else Q4_K
    if mixture in WHEN_SHARED and place.more_bits:
        return Q6_K
    return {"Q2_K": Q3_K, "Q3_K_L": Q5_K, "Q4_K_S": Q5_K if first else usual}.get(mixture, usual)


def _is_70b(shape: Shape) -> bool:
    """What llama.cpp calls a 70B: its value tensors are small and shared, so they get more bits."""
    return shape.layers == 80 and shape.architecture in {"llama", "qwen2"} and shape.heads != shape.kv_heads


def _fitting(tensor: Tensor, chosen: int) -> int:
    row = tensor.shape[0]
    if row % tensor_type(chosen).block_elements:
        chosen = FALLBACK.get(chosen, F16)
        if row % tensor_type(chosen).block_elements:
            return F16
    return chosen
