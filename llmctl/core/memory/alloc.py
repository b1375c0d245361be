"""The bytes that ggml's graph allocator reserves for a list of nodes (ggml/src/ggml-alloc.c of llama.cpp b10760).

Best fit among the free blocks, results written over a source that nobody else needs, outputs never freed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from llmctl.core.memory.graph.node import Node

_ENDLESS = 1 << 62
_IN_PLACE = frozenset(
    (
        "fill",
        "scale",
        "add",
        "add_id",
        "sub",
        "mul",
        "div",
        "sqr",
        "sqrt",
        "unary",
        "rope",
        "rms_norm",
        "clamp",
        "soft_max",
    )
)


class Pool:
    """One buffer's free blocks as [offset, size], sorted; the last one is endless."""

    __slots__ = ("alignment", "free", "peak")

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.free = [[0, _ENDLESS]]
        self.peak = 0

    def take(self, size: int) -> int:
        """The smallest block that is big enough, of equal ones the last; else the end."""
        free = self.free
        found, least = len(free) - 1, _ENDLESS
        for index in range(found):
            available = free[index][1]
            if size <= available <= least:
                found, least = index, available
        block = free[found]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del free[found]
        if offset + size > self.peak:
            self.peak = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a range, merged with the block before or after it."""
        free = self.free
        end = offset + size
        for index, block in enumerate(free):
            if block[0] + block[1] == offset:
                block[1] += size
                if index + 1 < len(free) and free[index + 1][0] == end:
                    block[1] += free.pop(index + 1)[1]
                return
            if block[0] == end:
                block[0] = offset
                block[1] += size
                return
            if block[0] > end:
                free.insert(index, [offset, size])
                return
        free.append([offset, size])


def reserve(
    nodes: list[Node],
    leafs: Iterable[Node],
    alignments: dict[int, int],
    layer_ends: Iterable[tuple[int, Node]] = (),
) -> tuple[dict[int, int], dict[int, Hashable]]:
    """The peak of each device's buffer, and the state of the allocator at the ends of the layers that are asked for.

    Every node's `device` is set, and its `size` is what it takes there.
    """
    pools = {device: Pool(alignment) for device, alignment in alignments.items()}
    ends = {id(node): layer for layer, node in layer_ends}
    states: dict[int, Hashable] = {}
    for leaf in leafs:
        _allocate(leaf, pools)
    _count(nodes)
    for node in nodes:
        if node.base is None and not node.allocated:
            _allocate(node, pools)
        for source in node.sources:
            source.children -= 1
            if source.children or source.views:
                continue
            base = source.base
            if base is None:
                if source.allocated:
                    _free(source, pools)
                continue
            base.views -= 1
            if not base.views and not base.children and base.allocated:
                _free(base, pools)
        if ends and id(node) in ends:
            states[ends[id(node)]] = (node.address, *(tuple(map(tuple, pool.free)) for pool in pools.values()))
    return {device: pool.peak for device, pool in pools.items()}, states


def _count(nodes: list[Node]) -> None:
    for node in nodes:
        # A view without an operation only marks that a tensor is still needed.
        if node.base is not None and node.op != "none":
            node.base.views += 1
        for source in node.sources:
            source.children += 1


def _allocate(node: Node, pools: dict[int, Pool]) -> None:
    if node.home is not None or node.base is not None or node.allocated:
        return
    node.allocated = True
    if node.op in _IN_PLACE and _over_a_source(node, pools):
        return
    pool = pools[node.device]
    node.address = pool.take(-(-node.size // pool.alignment) * pool.alignment)


def _over_a_source(node: Node, pools: dict[int, Pool]) -> bool:
    """Write the result where a source lies that has the same layout and no other reader. Views never qualify."""
    for source in node.sources:
        if not source.allocated or source.is_output or source.children != 1 or source.views:
            continue
        if source.kind != node.kind or not _same_shape(source.shape, node.shape):
            continue
        node.device = source.device
        node.address = source.address
        source.allocated = False
        alignment = pools[node.device].alignment
        kept = -(-node.size // alignment) * alignment
        extra = -(-source.size // alignment) * alignment - kept
        if extra > 0:
            pools[node.device].give(node.address + kept, extra)
        return True
    return False


def _same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    if one == other:
        return True
    return one + (1,) * (4 - len(one)) == other + (1,) * (4 - len(other))


def _free(node: Node, pools: dict[int, Pool]) -> None:
    if node.is_output:
        return
    pool = pools[node.device]
    pool.give(node.address, -(-node.size // pool.alignment) * pool.alignment)
    node.allocated = False
