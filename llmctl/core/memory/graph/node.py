"""A tensor of a graph as llama.cpp's builder would create it, without its data."""

from __future__ import annotations

VIEWS = frozenset(("view", "reshape", "permute", "transpose"))

# Elements and bytes of a block, for what a graph or a cache may hold.
TYPES = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "i32": (1, 4),
    "i64": (1, 8),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "iq4_nl": (32, 18),
}

QUANTIZED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")


class Node:
    """One tensor. `home` is the device of a weight or a cache (0 the host), None where the graph allocates it.

    `base` is the tensor that a view looks into, always the innermost one; a view of a part of each row is `strided`.
    """

    __slots__ = (
        "address",
        "allocated",
        "base",
        "children",
        "device",
        "home",
        "is_input",
        "is_output",
        "is_weight",
        "kind",
        "op",
        "seen",
        "shape",
        "size",
        "sources",
        "strided",
        "views",
    )

    def __init__(
        self,
        op: str,
        shape: tuple[int, ...],
        sources: list[Node],
        kind: str = "f32",
        base: Node | None = None,
        size: int = -1,
    ) -> None:
        self.op = op
        self.shape = shape
        self.sources = sources
        self.kind = kind
        self.base: Node | None = base if base is None or base.base is None else base.base
        if size < 0:
            block, length = TYPES[kind]
            size = length
            for count in shape:
                size *= count
            size //= block
        self.size = size
        self.home: int | None = None
        self.is_input = False
        self.is_output = False
        self.is_weight = False
        self.strided = False
        self.seen = False
        self.device = -1
        self.children = 0
        self.views = 0
        self.allocated = False
        self.address = 0
