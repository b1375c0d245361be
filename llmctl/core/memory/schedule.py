"""Which device computes which node, and what is copied between them (ggml_backend_sched_split_graph, ggml-backend.cpp).

Device 0 is the host, the last resort; 1, 2, ... are the GPUs. llama.cpp binds norms to their layer's device, but the
measurement that its fit relies on forgets that (ggml_backend_sched_reserve_size begins with a reset, :1969), so it is
not done here either: with several GPUs the load itself then takes a little less than the fit counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmctl.core.memory.graph.node import VIEWS, Node

HOST, UNKNOWN = 0, -1

# ggml-cuda.cu, op_offload_min_batch_size.
_OFFLOAD_BATCH = 32
_NOT_BY_WEIGHT = ("rope", "flash_attn")


@dataclass(frozen=True)
class Rules:
    """`stages_weights`: a GPU computes with weights that lie on the host, for big batches, and copies them (CUDA).

    `copies`: 4 where several GPUs hold the whole model and work on batches one after the other, else 1.
    """

    stages_weights: bool = False
    copies: int = 1


def schedule(nodes: list[Node], leafs: list[Node], rules: Rules) -> tuple[list[Node], list[Node], int]:
    """The nodes with the copies between the devices, the leafs, and the number of splits."""
    _by_weights(nodes, leafs, rules)
    computed = [node for node in nodes if node.op not in VIEWS]
    _spread(computed, gpus_only=True)
    _spread(reversed(computed), gpus_only=True)
    _spread(computed, gpus_only=False)
    _spread(reversed(computed), gpus_only=False)
    _follow(nodes)
    return _Splitter(rules).split(nodes, leafs)


def _by_weights(nodes: list[Node], leafs: list[Node], rules: Rules) -> None:
    """Pass 1: what is bound to a device by where its data or its weights lie."""
    for leaf in leafs:
        leaf.device = HOST if leaf.home is None else leaf.home
    for node in nodes:
        base = node.base
        if base is not None and base.home is not None:
            node.device = base.home
        elif node.op not in _NOT_BY_WEIGHT:
            for source in node.sources:
                if source.is_weight and source.home is not None:
                    staged = rules.stages_weights and source.home == HOST and _rows(node) >= _OFFLOAD_BATCH
                    node.device = 1 if staged else source.home
                    break


def _rows(node: Node) -> int:
    """The batch size by which CUDA decides to take an operation over (get_op_batch_size)."""
    if node.op == "get_rows":
        return 0
    if node.op == "mul_mat":
        return node.shape[1]
    if node.op in ("mul_mat_id", "rope"):
        return node.shape[2]
    rows = 1
    for count in node.shape[1:]:
        rows *= count
    return rows


def _spread(nodes: Iterable[Node], *, gpus_only: bool) -> None:
    """Pass 2: a node without a device goes where its neighbour is; first only the GPUs spread."""
    current = UNKNOWN
    for node in nodes:
        if node.device != UNKNOWN:
            current = UNKNOWN if gpus_only and node.device == HOST else node.device
        elif current != UNKNOWN:
            node.device = current


def _follow(nodes: list[Node]) -> None:
    """Pass 4: views are where their base is."""
    for node in nodes:
        if node.device == UNKNOWN:
            node.device = HOST if node.base is None else node.base.device
        for source in node.sources:
            if source.device == UNKNOWN:
                source.device = node.device if source.base is None else source.base.device


class _Splitter:
    """Pass 5: runs of nodes on one device, and copies of what they read from elsewhere."""

    def __init__(self, rules: Rules) -> None:
        self._count = rules.copies
        self._copies: dict[tuple[int, int], list[Node]] = {}
        self._inputs: dict[int, list[Node]] = {}
        self._splits: list[tuple[int, list[Node], list[Node]]] = []

    def split(self, nodes: list[Node], leafs: list[Node]) -> tuple[list[Node], list[Node], int]:
        first = next(index for index, node in enumerate(nodes) if node.op not in VIEWS)
        device, inputs, run = nodes[first].device, list[Node](), list[Node]()
        self._splits = [(device, inputs, run)]
        for node in nodes:
            if node.op not in VIEWS:
                if node.device != device or (inputs and _brings_weights(node, device)):
                    device, inputs, run = node.device, [], []
                    self._splits.append((device, inputs, run))
                self._copy_sources(node, device, inputs)
            run.append(node)
        return self._ordered(), self._kept() + leafs, len(self._splits)

    def _ordered(self) -> list[Node]:
        ordered: list[Node] = []
        for device, inputs, run in self._splits:
            for source in inputs:
                ordered += (_dependency(source), self._copies[id(source), device][0])
            ordered += run
        return ordered

    def _kept(self) -> list[Node]:
        """With several copies all of them are there from the beginning to the end."""
        if self._count == 1:
            return []
        kept = [copy for copies in self._inputs.values() for copy in copies]
        for device, inputs, _ in self._splits:
            for source in inputs:
                kept += self._copies[id(source), device]
        for copy in kept:
            copy.is_output = True
        return kept

    def _copy_sources(self, node: Node, device: int, inputs: list[Node]) -> None:
        for index, source in enumerate(node.sources):
            if source.is_input and self._count > 1 and id(source) not in self._inputs:
                self._inputs[id(source)] = [source, *self._duplicates(source, source.device)[1:]]
            if source.device == device:
                continue
            key = (id(source), device)
            if key not in self._copies:
                self._copies[key] = self._duplicates(source, device)
                inputs.append(source)
            node.sources[index] = self._copies[key][0]

    def _duplicates(self, source: Node, device: int) -> list[Node]:
        copies = [Node("none", source.shape, [], source.kind, size=source.size) for _ in range(self._count)]
        for copy in copies:
            copy.device = device
        return copies


def _brings_weights(node: Node, device: int) -> bool:
    """A new split, so that the memory of the weights that were copied before is free again."""
    return any(source.is_weight and source.home != device for source in node.sources)


def _dependency(source: Node) -> Node:
    """A node that keeps the source until it has been copied."""
    node = Node("none", source.shape, [source], source.kind, base=source, size=0)
    node.device = source.device
    return node
