"""Attention with a cache, with a sliding window's cache beside it, or with none (src/llama-graph.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.memory.graph.build import Build
from llmctl.core.memory.graph.node import QUANTIZED, Node


@dataclass(frozen=True)
class _Cache:
    """What all layers of one cache share: its cells, its inputs, its rotations of quantized keys and values."""

    cells: int
    mask: Node
    key_rows: Node
    value_rows: Node
    key_rotation: Node | None
    value_rotation: Node | None


class Attention:
    """The attention of one graph. Its inputs are shared by all layers."""

    def __init__(self, build: Build, *, soft_cap: bool = False) -> None:
        self._build = build
        self._soft_cap = soft_cap
        self._windowed = build.shape.window > 0
        self._streams = build.settings.streams if build.shape.has_cache else 1
        self._caches: dict[bool, _Cache] = {}
        self._masks: dict[bool, Node] = {}
        widths = [build.shape.value_width(layer) for layer in range(build.shape.layers)]
        self._widest_value = max(widths)

    def __call__(self, layer: int, q: Node, k: Node, v: Node, *, sinks: str = "", output: str = "attn_output") -> Node:
        """softmax(q k) v of one layer, through its output projection."""
        build = self._build
        if not build.shape.has_cache:
            for node in (q, k, v):
                build.expand(node)
            x = self._scores(layer, q, k, v, self._mask(layer), sinks, transposed=False)
            return build.linear(x, layer, output)
        cache = self._cache(layer)
        q, k, v = self._rotated(cache, q, k, v)
        for node in (q, k, v) if self._windowed else (q, v, k):
            build.expand(node)
        k, v = self._stored(layer, cache, k, v)
        x = self._scores(layer, q, k, v, cache.mask, sinks, transposed=not build.settings.flash)
        if cache.value_rotation is not None:
            x = self._rotate(x, cache.value_rotation)
        return build.linear(x, layer, output)

    def _cache(self, layer: int) -> _Cache:
        slides = self._build.shape.sliding[layer]
        if slides not in self._caches:
            self._caches[slides] = self._new_cache(layer)
        return self._caches[slides]

    def _new_cache(self, layer: int) -> _Cache:
        build, shape, settings = self._build, self._build.shape, self._build.settings
        cells = settings.window_cells(shape.window) if shape.sliding[layer] else settings.cells
        value_rows = build.tokens if settings.flash else build.tokens * self._widest_value
        return _Cache(
            cells=cells,
            mask=self._input_mask(cells, self._streams),
            key_rows=build.input((build.tokens,), "i64"),
            value_rows=build.input((value_rows,), "i64"),
            key_rotation=self._rotation(layer, settings.cache_k, shape.key_lengths, largest=True),
            value_rotation=self._rotation(layer, settings.cache_v, shape.value_lengths, largest=False),
        )

    def _input_mask(self, cells: int, streams: int) -> Node:
        build = self._build
        kind = "f16" if build.flash else "f32"
        return build.input((cells, build.tokens // streams, 1, streams), kind)

    def _mask(self, layer: int) -> Node:
        slides = self._build.shape.sliding[layer]
        if slides not in self._masks:
            self._masks[slides] = self._input_mask(self._build.tokens, 1)
        return self._masks[slides]

    def _rotation(self, layer: int, kind: str, lengths: tuple[int, ...], *, largest: bool) -> Node | None:
        """The Hadamard matrix that spreads outliers before quantizing (src/llama-kv-cache.cpp:321 and :1435)."""
        shape = self._build.shape
        alike = [other for other in range(shape.layers) if shape.sliding[other] == shape.sliding[layer]]
        if kind not in QUANTIZED or lengths[0] % 64 or any(lengths[other] != lengths[layer] for other in alike):
            return None
        order, length = 64, lengths[layer]
        while largest and length % (order * 2) == 0:
            order *= 2
        return self._build.input((order, order))

    def _rotated(self, cache: _Cache, q: Node, k: Node, v: Node) -> tuple[Node, Node, Node]:
        if cache.key_rotation is not None:
            q, k = self._rotate(q, cache.key_rotation), self._rotate(k, cache.key_rotation)
        if cache.value_rotation is not None:
            v = self._rotate(v, cache.value_rotation)
        return q, k, v

    def _rotate(self, x: Node, rotation: Node) -> Node:
        build, order, elements = self._build, rotation.shape[0], 1
        for count in x.shape:
            elements *= count
        flat = (order, elements // order)
        rows = build.cont(x, *flat) if x.strided else build.reshape(x, *flat)
        return build.reshape(build.mul_mat(rotation, rows), *x.shape)

    def _stored(self, layer: int, cache: _Cache, k: Node, v: Node) -> tuple[Node, Node]:
        """Write the batch's keys and values into the cache, and look at the whole of it."""
        build, shape, settings, streams = self._build, self._build.shape, self._build.settings, self._streams
        home = build.placement.layers[layer]
        wide = shape.value_width(layer) if settings.flash else self._widest_value
        keys = build.external((shape.key_width(layer), cache.cells, streams), settings.cache_k, home)
        values = build.external((wide, cache.cells, streams), settings.cache_v, home)
        self._set_rows(keys, build.view(k, (shape.key_width(layer), build.tokens)), cache.key_rows)
        if settings.flash:
            self._set_rows(values, build.view(v, (wide, build.tokens)), cache.value_rows)
        else:
            self._set_elements(values, v, wide, cache.value_rows)
        heads, length = shape.kv_heads[layer], shape.value_lengths[layer]
        k = build.view(keys, (shape.key_lengths[layer], heads, cache.cells, streams))
        order = (length, heads, cache.cells) if settings.flash else (cache.cells, heads, length)
        return k, build.view(values, (*order, streams))

    def _set_rows(self, cache: Node, rows: Node, index: Node) -> None:
        build, (width, cells, streams) = self._build, cache.shape
        target = build.reshape(cache, width, cells * streams) if streams > 1 else cache
        build.expand(Node("set_rows", target.shape, [rows, index, target], cache.kind, base=cache))

    def _set_elements(self, cache: Node, v: Node, wide: int, index: Node) -> None:
        """The transposed values of a graph without flash attention: each element is a row."""
        build, (length, heads, tokens) = self._build, v.shape[:3]
        v = (build.cont if v.strided else build.reshape)(v, length * heads, tokens)
        if length * heads < wide:
            v = Node("pad", (wide, tokens), [v])
        count = cache.shape[0] * cache.shape[1] * cache.shape[2]
        target = build.reshape(cache, 1, count)
        rows = build.reshape(v, 1, wide * tokens)
        build.expand(Node("set_rows", target.shape, [rows, index, target], cache.kind, base=cache))

    def _scores(self, layer: int, q: Node, k: Node, v: Node, mask: Node, sinks: str, *, transposed: bool) -> Node:
        build, streams = self._build, self._streams
        length, heads, tokens = q.shape[:3]
        q = build.permute(build.view(q, (length, heads, tokens // streams, streams)))
        k, v = build.permute(k), build.permute(v)
        extra = [build.layer_weight(layer, sinks)] if sinks else []
        if build.flash:
            k, v = self._half(k), self._half(v)
            result = (v.shape[0], heads, tokens // streams, streams)
            x = Node("flash_attn", result, [q, k, v, mask, *extra])
            x = build.reshape(x, v.shape[0] * heads, tokens)
        else:
            x = self._without_flash(q, k, v, mask, extra, transposed=transposed)
        build.expand(x)
        return x

    def _half(self, x: Node) -> Node:
        return Node("cpy", x.shape, [x], "f16") if x.kind == "f32" else x

    def _without_flash(self, q: Node, k: Node, v: Node, mask: Node, extra: list[Node], *, transposed: bool) -> Node:
        build = self._build
        scores = build.mul_mat(k, q)
        if self._soft_cap:
            scores = build.scale(build.same("unary", build.scale(scores)))
        scores = build.same("soft_max", scores, mask, *extra)
        if not transposed:
            rows, columns, *rest = v.shape
            v = build.cont(build.view(v, (columns, rows, *rest), "transpose"), columns, rows, *rest)
        x = build.permute(build.mul_mat(v, scores))
        length, heads, tokens, streams = x.shape
        return build.cont(x, length * heads, tokens * streams)
