"""The compute buffers: the graph of one batch, scheduled and allocated as ggml would."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from importlib import import_module

from llmctl.core.memory.alloc import reserve
from llmctl.core.memory.graph.build import Build, MissingTensor
from llmctl.core.memory.graph.repeat import Cut, cuts, kept
from llmctl.core.memory.schedule import HOST, Rules, schedule
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import Shape

# Which module of llmctl.core.memory.graph draws an architecture.
FAMILIES = {
    "bert": "bert",
    "cohere2": "command_r",
    "command-r": "command_r",
    "gemma-embedding": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "glm4": "glm4",
    "gpt-oss": "gpt_oss",
    "llama": "llama",
    "mistral3": "llama",
    "nomic-bert": "bert",
    "nomic-bert-moe": "bert",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3moe": "llama",
}

_ALIGNMENT = {"cpu": 32, "rpc": 32, "cuda": 128}


@dataclass(frozen=True)
class Compute:
    """Bytes by device, 0 the host. `exactness` is exact, bound or unknown; unknown has no bytes.

    `nodes` and `splits` are what the server prints as `graph nodes` and `graph splits`; 0 where not all were drawn.
    """

    bytes: dict[int, int]
    exactness: str
    nodes: int = 0
    splits: int = 0


def compute_buffers(shape: Shape, settings: Settings, placement: Placement, *, whole: bool = False) -> Compute:
    """What llama.cpp b10760 reserves to compute a batch of `settings.ubatch` tokens.

    `whole` draws every layer, where else repeated ones are left out; the bytes are the same.
    """
    if shape.architecture not in FAMILIES:
        return Compute({}, "unknown")
    try:
        left_out = () if whole else cuts(_kinds(shape, settings, placement))
        found = _emulated(shape, settings, placement, left_out) if left_out else None
        return found or _emulated(shape, settings, placement, ()) or Compute({}, "unknown")
    except MissingTensor:
        return Compute({}, "unknown")


def _kinds(shape: Shape, settings: Settings, placement: Placement) -> list[Hashable]:
    """What the graph shows of each layer. The last one is alone: only its outputs go on."""
    sizes = settings.backend == "cuda" and not placement.full
    moved = {over.layer for over in placement.overflow}
    alike = shape.layer_kinds(sizes)
    kinds: list[Hashable] = [
        (alike[layer], placement.layers[layer], layer if layer in moved else -1) for layer in range(shape.graph_layers)
    ]
    kinds[-1] = "last"
    return kinds


def _emulated(shape: Shape, settings: Settings, placement: Placement, left_out: Sequence[Cut]) -> Compute | None:
    """None where layers are left out although the allocator's state does not repeat."""
    build = Build(shape, settings, placement, kept(shape.graph_layers, left_out))
    import_module(f"llmctl.core.memory.graph.{FAMILIES[shape.architecture]}").graph(build)
    nodes, leafs, splits = build.nodes, build.leafs, 1
    alignments = {HOST: 32}
    if settings.backend == "cpu":
        for node in (*nodes, *leafs):
            node.device = HOST
    else:
        alignments |= dict.fromkeys(range(1, placement.devices + 1), _ALIGNMENT[settings.backend])
        nodes, leafs, splits = schedule(nodes, leafs, Rules(stages_weights=settings.backend == "cuda"))
    sizes, states = reserve(nodes, leafs, alignments, build.layer_ends if left_out else ())
    if not all(cut.holds(states) for cut in left_out):
        return None
    exactness = "bound" if settings.backend == "cuda" else "exact"
    return Compute(sizes, exactness) if left_out else Compute(sizes, exactness, len(build.nodes), splits)
