"""The compute buffers: the graph of one batch, scheduled and allocated as ggml would."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from llmctl.core.memory import cuda
from llmctl.core.memory.alloc import reserve
from llmctl.core.memory.graph.build import Build, MissingTensor
from llmctl.core.memory.graph.node import Node
from llmctl.core.memory.graph.repeat import Cut, cuts, kept
from llmctl.core.memory.refusals import refusal, too_many_nodes
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
    "olmoe": "olmoe",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3moe": "llama",
}

_ALIGNMENT = {"rpc": 32, "cuda": 128}


@dataclass(frozen=True)
class Compute:
    """Bytes by device, 0 the host. `exactness` is exact, bound or unknown; unknown has no bytes.

    `nodes` and `splits` are what the server prints as `graph nodes` and `graph splits`; no splits where not all
    layers were drawn. `refused` says why the engine would not start with these settings.
    """

    bytes: dict[int, int]
    exactness: str
    nodes: int = 0
    splits: int = 0
    refused: str | None = None


def compute_buffers(shape: Shape, settings: Settings, placement: Placement, *, whole: bool = False) -> Compute:
    """What llama.cpp b10760 reserves to compute a batch of `settings.ubatch` tokens.

    `whole` draws every layer, where else repeated ones are left out; the bytes are the same.
    """
    refused = refusal(shape, settings)
    if shape.architecture not in FAMILIES:
        return Compute({}, "unknown", refused=refused)
    try:
        left_out = () if whole else cuts(_kinds(shape, settings, placement))
        found = _emulated(shape, settings, placement, left_out) if left_out else None
        found = found or _emulated(shape, settings, placement, ())
    except MissingTensor:
        found = None
    if found is None:
        return Compute({}, "unknown", refused=refused)
    return replace(found, refused=refused) if refused else found


def _kinds(shape: Shape, settings: Settings, placement: Placement) -> list[Hashable]:
    """What the graph shows of each layer. The last one is alone: only its outputs go on."""
    sizes = settings.backend == "cuda" and not placement.full
    moved: dict[int, tuple[tuple[str, int], ...]] = {}
    for over in placement.overflow:
        moved[over.layer] = (*moved.get(over.layer, ()), (over.part, over.device))
    alike = shape.layer_kinds(sizes)
    kinds: list[Hashable] = [
        (alike[layer], placement.layers[layer], moved.get(layer)) for layer in range(shape.graph_layers)
    ]
    kinds[-1] = "last"
    return kinds


def _emulated(shape: Shape, settings: Settings, placement: Placement, left_out: Sequence[Cut]) -> Compute | None:
    """None where layers are left out although the allocator's state does not repeat."""
    flash = cuda.flash_attention(shape, settings) if settings.backend == "cuda" and settings.flash else settings.flash
    if flash is None:
        return Compute({}, "unknown")
    build = Build(shape, settings, placement, kept(shape.graph_layers, left_out), flash=flash)
    import_module(f"llmctl.core.memory.graph.{FAMILIES[shape.architecture]}").graph(build)
    nodes, leafs = build.counted(left_out)
    ordered, kept_leafs, splits, alignments = _scheduled(build)
    sizes, states = reserve(ordered, kept_leafs, alignments, build.layer_ends if left_out else ())
    if not all(cut.holds(states) for cut in left_out):
        return None
    exactness = "bound" if build.scaled else "exact"
    if settings.backend == "cuda":
        sizes, exactness = cuda.bounded(build, sizes), "bound"
    refused = too_many_nodes(shape, nodes, leafs)
    return Compute(sizes, exactness, nodes, 0 if left_out else splits, refused)


def _scheduled(build: Build) -> tuple[list[Node], list[Node], int, dict[int, int]]:
    """The nodes on their devices, in the order in which they are allocated, and the alignment of each device."""
    settings, placement = build.settings, build.placement
    if settings.backend == "cpu":
        for node in (*build.nodes, *build.leafs):
            node.device = HOST
        return build.nodes, build.leafs, 1, {HOST: 32}
    alignments = {HOST: 32} | dict.fromkeys(range(1, placement.devices + 1), _ALIGNMENT[settings.backend])
    # Several GPUs that hold everything work as a pipeline (src/llama-context.cpp:412).
    pipeline = placement.full and placement.devices > 1 and not placement.overflow
    rules = Rules(stages_weights=settings.backend == "cuda", copies=4 if pipeline else 1)
    ordered, leafs, splits = schedule(build.nodes, build.leafs, rules)
    return (cuda.adjusted(build, ordered) if settings.backend == "cuda" else ordered), leafs, splits, alignments
