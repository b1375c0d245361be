"""The compute buffers: the graph of one batch, scheduled and allocated as ggml would."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from llmctl.core.memory.alloc import reserve
from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.schedule import HOST, Rules, schedule
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import Shape

# Which module of llmctl.core.memory.graph draws an architecture.
FAMILIES = {
    "llama": "llama",
    "mistral3": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3moe": "llama",
}

_ALIGNMENT = {"cpu": 32, "rpc": 32, "cuda": 128}


@dataclass(frozen=True)
class Compute:
    """Bytes by device, 0 the host. `exactness` is exact, bound or unknown; unknown has no bytes."""

    bytes: dict[int, int]
    exactness: str
    nodes: int = 0
    splits: int = 0


def compute_buffers(shape: Shape, settings: Settings, placement: Placement) -> Compute:
    """What llama.cpp b10760 reserves to compute a batch of `settings.ubatch` tokens."""
    family = FAMILIES.get(shape.architecture)
    if family is None:
        return Compute({}, "unknown")
    build = Build(shape, settings, placement)
    import_module(f"llmctl.core.memory.graph.{family}").graph(build)
    nodes, leafs, splits = build.nodes, build.leafs, 1
    alignments = {HOST: 32}
    if settings.backend == "cpu":
        for node in (*nodes, *leafs):
            node.device = HOST
    else:
        alignments |= dict.fromkeys(range(1, placement.devices + 1), _ALIGNMENT[settings.backend])
        nodes, leafs, splits = schedule(nodes, leafs, Rules(stages_weights=settings.backend == "cuda"))
    sizes = reserve(nodes, leafs, alignments)
    return Compute(sizes, "bound" if settings.backend == "cuda" else "exact", len(build.nodes), splits)
