"""Where each tensor goes, and what it takes there.

llama.cpp b10760: src/llama-model.cpp:1433-1488 (layers and devices), src/llama-arch.cpp:708 (which tensors count as
input and output), ggml/src/ggml-alloc.c:1168 (padding), ggml/src/ggml-cuda/ggml-cuda.cu:907 (CUDA's longer rows).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from llmctl.core.memory.ggml import tensor_type
from llmctl.core.memory.gguf import Tensor
from llmctl.core.memory.settings import Placement, padded
from llmctl.core.memory.shape import Shape

HOST = 0
ALIGNMENT = {"cpu": 32, "rpc": 32, "cuda": 128}
CUDA_ROW = 512
INPUT = ("token_embd.weight", "position_embd.", "token_types.", "per_layer_token_embd.")
OUTPUT = ("output", "altup_", "cls", "dense_2", "dense_3", "dec.output_norm", "enc.output_norm")
# Read by every layer, so that each device with a layer has its own copy.
EVERYWHERE = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")
# What llama-server loads apart from the model, as its projector.
PROJECTOR = ("v.", "mm.", "a.")
# Here a block that predicts further tokens stands in the file and is not loaded.
SKIPS_NEXTN = frozenset({"glm4moe"})
# These load the tied embedding as an output layer of its own even on the host.
TWICE_ON_HOST = frozenset({"gemma3n", "gemma4"})
BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class _Part:
    """A tensor's bytes in host memory and in a GPU's, padded as there. `layer` None: see `role`."""

    name: str
    role: str
    layer: int | None
    host_bytes: int
    gpu_bytes: int


class Weights:
    """A model's tensors, ready to be counted for one placement after another."""

    def __init__(self, shape: Shape, backend: str) -> None:
        self._parts: list[_Part] = []
        self._layer_bytes: list[tuple[int, int]] = [(0, 0)] * shape.layers
        self._of_layer: list[list[_Part]] = [[] for _ in range(shape.layers)]
        self._twice = shape.architecture in TWICE_ON_HOST
        self._experts = shape.experts, shape.experts_used
        self.unknown_types: tuple[str, ...] = ()
        unknown = set()
        for tensor in shape.tensors:
            if tensor.size_bytes is None:
                unknown.add(tensor.type_name)
            else:
                self._add(shape, _part(tensor, backend))
        self.unknown_types = tuple(sorted(unknown))

    def _add(self, shape: Shape, part: _Part) -> None:
        skipped = part.layer is not None and part.layer >= shape.graph_layers and shape.architecture in SKIPS_NEXTN
        if skipped or (part.layer is not None and part.layer >= shape.layers):
            return
        if part.role != "layer" or part.layer is None:
            self._parts.append(part)
            if part.role == "input" and part.name == INPUT[0] and shape.tied and _has_output(shape):
                self._parts.append(_Part(part.name, "tied", None, part.host_bytes, part.gpu_bytes))
            return
        host, gpu = self._layer_bytes[part.layer]
        self._layer_bytes[part.layer] = (host + part.host_bytes, gpu + part.gpu_bytes)
        self._of_layer[part.layer].append(part)

    @property
    def projector_bytes(self) -> int:
        """What stands in the same file for pictures or sound, and is loaded apart."""
        return sum(part.gpu_bytes for part in self._parts if part.role == "projector")

    def on(self, placement: Placement) -> Counter[int] | None:
        """Bytes by device; None where the file has a tensor of a type that is unknown here."""
        if self.unknown_types:
            return None
        total: Counter[int] = Counter({HOST: 0})
        for layer, device in enumerate(placement.layers):
            host, gpu = self._layer_bytes[layer]
            total[device] += gpu if device else host
        for over in placement.overflow:
            self._move(total, placement, over.layer)
        for part in self._parts:
            for device in self._homes(part, placement):
                total[device] += part.gpu_bytes if device else part.host_bytes
        return total

    def _move(self, total: Counter[int], placement: Placement, layer: int) -> None:
        """Take what overflows from the layer's device to where it lies instead."""
        if layer >= len(placement.layers):
            return
        home = placement.layers[layer]
        for part in self._of_layer[layer]:
            device = placement.device_of(layer, part.name)
            if device != home:
                total[home] -= part.gpu_bytes if home else part.host_bytes
                total[device] += part.gpu_bytes if device else part.host_bytes

    def _homes(self, part: _Part, placement: Placement) -> tuple[int, ...]:
        if part.role == "projector":
            return ()
        if part.role == "output":
            return (placement.output,)
        if part.role == "tied":
            # In the same memory one tensor serves both ends.
            return (placement.output,) if placement.output or self._twice else ()
        if part.role == "everywhere":
            return tuple(sorted(set(placement.layers)))
        return (placement.layers[0],) if part.role == "first" else (HOST,)

    def idle_experts_bytes(self) -> int:
        """Bytes of the experts that a token does not read."""
        every, used = self._experts
        held = sum(part.host_bytes for parts in self._of_layer for part in parts if "exps" in part.name)
        return held * (every - used) // every if every else 0

    def input_bytes(self) -> int:
        """The embedding tables, of which a token reads one row."""
        return sum(part.host_bytes for part in self._parts if part.role == "input")


def _part(tensor: Tensor, backend: str) -> _Part:
    size = tensor.size_bytes or 0
    gpu = size
    kind = tensor_type(tensor.type_id)
    if backend == "cuda" and kind.block_bytes is not None and kind.block_elements > 1:
        gpu += -tensor.shape[0] % CUDA_ROW // kind.block_elements * kind.block_bytes
    role, layer = _role(tensor.name)
    return _Part(tensor.name, role, layer, padded(size, ALIGNMENT["cpu"]), padded(gpu, ALIGNMENT[backend]))


def _role(name: str) -> tuple[str, int | None]:
    if found := BLOCK.match(name):
        return "layer", int(found[1])
    for role, prefixes in (("input", INPUT), ("output", OUTPUT), ("everywhere", EVERYWHERE), ("projector", PROJECTOR)):
        if name.startswith(prefixes):
            return role, None
    return "first", None


def _has_output(shape: Shape) -> bool:
    """Whether the model makes tokens at all; one for embeddings has no output layer to tie."""
    return shape.has_cache or shape.architecture == "gemma-embedding"
