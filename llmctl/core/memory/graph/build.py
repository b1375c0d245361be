"""The vocabulary in which a family's graph is written: what llama.cpp's graph builder would create, as sizes.

A node holds no data; its shape has the row length first, as ggml has it. The order of the nodes matters to the
byte, so every function names its sources in ggml's order (ggml/src/ggml.c), and nodes enter the graph when they
are expanded, sources first, as in ggml_build_forward_expand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmctl.core.memory.ggml import tensor_type
from llmctl.core.memory.graph.node import TYPES, Node
from llmctl.core.memory.graph.repeat import Cut
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import Shape


class MissingTensor(Exception):
    """The header lacks a tensor that the family's graph needs."""


class Build:
    """A graph in the making: the batch it is reserved for, its inputs, its nodes in order.

    `layers` are those that are drawn; see repeat.py for why not all need to be. `flash` says whether the devices
    have flash attention; the layout of the cache depends only on whether the settings allow it.
    """

    def __init__(
        self, shape: Shape, settings: Settings, placement: Placement, layers: Sequence[int], *, flash: bool
    ) -> None:
        self.shape = shape
        self.settings = settings
        self.placement = placement
        self.flash = flash
        self.tokens = -(-settings.tokens // settings.parallel) * settings.parallel
        self.outputs = min(settings.tokens, settings.ubatch if settings.embedding else settings.parallel)
        self.nodes: list[Node] = []
        self.leafs: list[Node] = []
        self.layers = layers
        self.layer_ends: list[tuple[int, Node]] = []
        self.embedded: Node | None = None
        # Scales beside the weights (NVFP4) add operations that are not drawn here.
        self.scaled = any(tensor.name.endswith(".scale") for tensor in shape.tensors)
        self.expert_sums: list[tuple[Node, Node, Node]] = []
        self._sizes: dict[int, tuple[int, int]] = {}
        self._weights: dict[tuple[str, int], Node] = {}
        self.positions = self.input((self.tokens,), "i32")
        self._output_rows = self.input((self.outputs,), "i32")

    # The graph

    def expand(self, node: Node) -> None:
        """Put a node into the graph, its sources before it."""
        if node.seen:
            return
        node.seen = True
        for source in node.sources:
            if not source.seen:
                self.expand(source)
        (self.leafs if node.op == "none" else self.nodes).append(node)

    def input(self, shape: tuple[int, ...], kind: str = "f32") -> Node:
        node = Node("none", shape, [], kind)
        node.is_input = True
        return node

    def external(self, shape: tuple[int, ...], kind: str, home: int, size: int = -1) -> Node:
        """A tensor that lies in a buffer of its own: a weight or a cache."""
        node = Node("none", shape, [], kind, size=size)
        node.home = home
        return node

    def weight(self, name: str, home: int) -> Node:
        known = self._weights.get((name, home))
        if known is not None:
            return known
        tensor = self.shape.tensor(name)
        if tensor is None:
            raise MissingTensor(name)
        node = self.external(tensor.shape, tensor_type(tensor.type_id).name.lower(), home, tensor.size_bytes or 0)
        node.is_weight = True
        self._weights[name, home] = node
        return node

    def layer_weight(self, layer: int, name: str) -> Node:
        name = f"blk.{layer}.{name}"
        placement = self.placement
        return self.weight(name, placement.device_of(layer, name) if placement.overflow else placement.layers[layer])

    def has(self, layer: int, name: str) -> bool:
        return self.shape.has(f"blk.{layer}.{name}")

    # Operations

    def mul_mat(self, weight: Node, x: Node) -> Node:
        return Node("mul_mat", (weight.shape[1], *x.shape[1:]), [weight, x])

    def mul_mat_id(self, weight: Node, x: Node, ids: Node) -> Node:
        return Node("mul_mat_id", (weight.shape[1], ids.shape[0], x.shape[2]), [weight, x, ids])

    def same(self, op: str, x: Node, *others: Node) -> Node:
        """An operation whose result has the first source's shape."""
        return Node(op, x.shape, [x, *others], x.kind)

    def add(self, x: Node, y: Node) -> Node:
        return Node("add", x.shape, [x, y])

    def mul(self, x: Node, y: Node) -> Node:
        return Node("mul", x.shape, [x, y])

    def scale(self, x: Node) -> Node:
        return Node("scale", x.shape, [x])

    def get_rows(self, table: Node, rows: Node) -> Node:
        return Node("get_rows", (table.shape[0], *rows.shape), [table, rows])

    def view(self, x: Node, shape: tuple[int, ...], op: str = "view", size: int = -1) -> Node:
        return Node(op, shape, [x], x.kind, base=x, size=size)

    def part(self, x: Node, shape: tuple[int, ...]) -> Node:
        """A view of a part of each row. A copy of it is as long as from its first element to its last."""
        per_row = 1
        for count in shape[:-1]:
            per_row *= count
        length = TYPES[x.kind][1]
        node = self.view(x, shape, size=length * ((shape[-1] - 1) * x.shape[0] + per_row))
        node.strided = True
        return node

    def reshape(self, x: Node, *shape: int) -> Node:
        return Node("reshape", shape, [x], x.kind, base=x)

    def permute(self, x: Node) -> Node:
        """Swap the second and the third dimension."""
        first, second, third, *rest = x.shape
        return Node("permute", (first, third, second, *rest), [x], x.kind, base=x)

    def cont(self, x: Node, *shape: int) -> Node:
        return Node("cont", shape, [x], x.kind)

    # What every family has

    def embedding(self) -> Node:
        """The rows of the token embedding, or, in the same graph, embeddings that come from outside."""
        width = self.shape.embedding_length
        rows = self.get_rows(self.weight("token_embd.weight", 0), self.input((self.tokens,), "i32"))
        self.expand(rows)
        self.expand(self.input((width, self.tokens)))
        return rows

    def linear(self, x: Node, layer: int, name: str, *, bias: bool = True) -> Node:
        x = self.mul_mat(self.layer_weight(layer, name + ".weight"), x)
        if bias and self.has(layer, name + ".bias"):
            x = self.add(x, self.layer_weight(layer, name + ".bias"))
        return x

    def norm(self, x: Node, layer: int, name: str, op: str = "rms_norm", *, common: bool = False) -> Node:
        """A norm with its weight, and its bias where there is one. A `common` one's name does not have the layer."""
        prefix, home = "" if common else f"blk.{layer}.", self.placement.layers[layer]
        x = self.mul(self.same(op, x), self.weight(f"{prefix}{name}.weight", home))
        if self.shape.has(f"{prefix}{name}.bias"):
            x = self.add(x, self.weight(f"{prefix}{name}.bias", home))
        return x

    def rope(self, x: Node) -> Node:
        return Node("rope", x.shape, [x, self.positions])

    def only_outputs(self, layer: int, *values: Node) -> tuple[Node, ...]:
        """After the last layer's attention only the rows that are asked for go on."""
        if layer != self.shape.graph_layers - 1:
            return values
        return tuple(self.get_rows(value, self._output_rows) for value in values)

    def layer_output(self, layer: int, x: Node) -> Node:
        self.layer_ends.append((layer, x))
        self._sizes[layer] = (len(self.nodes), len(self.leafs))
        return x

    def counted(self, left_out: Iterable[Cut]) -> tuple[int, int]:
        """How many nodes and leafs there are with those of the layers that were left out."""
        nodes, leafs = len(self.nodes), len(self.leafs)
        for cut in left_out:
            last, before = self._sizes[cut.after], self._sizes[cut.after - cut.group]
            nodes += cut.repeats * (last[0] - before[0])
            leafs += cut.repeats * (last[1] - before[1])
        return nodes, leafs

    def output_rows(self, x: Node) -> Node:
        return self.get_rows(x, self._output_rows)

    def output_norm(self, x: Node, op: str = "rms_norm") -> Node:
        """The last norm, whose result stays: it is the embedding."""
        home = self.placement.output
        x = self.mul(self.same(op, x), self.weight("output_norm.weight", home))
        if self.shape.has("output_norm.bias"):
            x = self.add(x, self.weight("output_norm.bias", home))
        x.is_output = True
        self.embedded = x
        return x

    def logits(self, x: Node) -> Node:
        """The output layer, or the token embedding a second time."""
        name = "token_embd.weight" if self.shape.tied else "output.weight"
        return self.mul_mat(self.weight(name, self.placement.output), x)

    def finish(self, x: Node) -> None:
        """The graph's result, and for an embedding the one vector that the rows are pooled to."""
        x.is_output = True
        self.expand(x)
        if self.settings.embedding and self.embedded is not None:
            pooled = self._dense(self._pooled(self.embedded))
            pooled.is_output = True
            self.expand(pooled)

    def _pooled(self, x: Node) -> Node:
        """src/llama-graph.cpp:3605: nothing (0), the mean (1), the first row (2) or the last (3)."""
        sequences, pooling = self.settings.parallel, self.shape.pooling
        if pooling == 1:
            rows, width = x.shape[1], x.shape[0]
            turned = self.cont(self.view(x, (rows, width), "transpose"), rows, width)
            return self.mul_mat(turned, self.input((self.tokens, sequences)))
        return self.get_rows(x, self.input((sequences,), "i32")) if pooling in (2, 3) else x

    def _dense(self, x: Node) -> Node:
        """The two projections that a sentence-transformers model may end with."""
        for name in ("dense_2.weight", "dense_3.weight"):
            if self.shape.has(name):
                x = self.mul_mat(self.weight(name, self.placement.output), x)
        return x
