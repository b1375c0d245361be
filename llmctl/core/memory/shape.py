"""What a model's header says about its graph: one dataclass, per-layer facts always as arrays.

The defaults are those of llama.cpp b10760: llama_model_base::load_hparams (src/llama-model.cpp:1196) and each
architecture's load_arch_hparams (src/models/*.cpp).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from llmctl.core.memory.cursor import GgufError
from llmctl.core.memory.gguf import Array, Gguf, Tensor, Value

__all__ = ["Shape", "from_gguf"]


@dataclass(frozen=True)
class _Window:
    """Which layers slide: of each `period` layers one is full, the last or (`dense_first`) the first."""

    period: int
    dense_first: bool = False
    default: int = 0
    forced: int = 0
    kind: str = "standard"
    by_array: bool = False


# The architectures with a sliding window, and the period that holds where the file names none. An array under
# a key that is read as a number is ignored (src/llama-model-loader.cpp:511), so the period holds there too.
_WINDOWS = {
    "afmoe": _Window(4),
    "cohere2": _Window(4),
    "cohere2moe": _Window(4, dense_first=True),
    "exaone4": _Window(4, default=4096),
    "gemma-embedding": _Window(6, kind="symmetric"),
    "gemma2": _Window(2, default=4096),
    "gemma3": _Window(6),
    "gemma3n": _Window(5),
    "gemma4": _Window(0, by_array=True),
    "gpt-oss": _Window(2),
    "laguna": _Window(4, dense_first=True),
    "llama4": _Window(4, default=8192, forced=8192, kind="chunked"),
    "mimo2": _Window(0, by_array=True),
    "modern-bert": _Window(3, dense_first=True, kind="symmetric"),
    "olmo2": _Window(4),
    "plamo3": _Window(8),
    "smallthinker": _Window(4, dense_first=True, forced=4096),
    "step35": _Window(0, by_array=True),
}

# src/llama-model.cpp:2219.
_NO_CACHE = (
    "bert",
    "dream",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llada",
    "llada-moe",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "rnd1",
    "wavtokenizer-dec",
)


@dataclass(frozen=True)
class Shape:
    """A model. Every per-layer tuple has `layers` entries; `keys` holds the metadata without the architecture."""

    architecture: str
    layers: int
    layers_nextn: int
    embedding_length: int
    vocabulary: int
    context_train: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    key_lengths: tuple[int, ...]
    value_lengths: tuple[int, ...]
    feed_forward: tuple[int, ...]
    window: int
    window_kind: str
    sliding: tuple[bool, ...]
    experts: int
    experts_used: int
    mla: bool
    has_cache: bool
    pooling: int
    quantization: str | None
    tensors: tuple[Tensor, ...]
    keys: Mapping[str, Value] = field(compare=False, repr=False)

    @cached_property
    def _by_name(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    def tensor(self, name: str) -> Tensor | None:
        return self._by_name.get(name)

    @cached_property
    def _by_layer(self) -> list[list[Tensor]]:
        layers: list[list[Tensor]] = [[] for _ in range(self.layers)]
        for tensor in self.tensors:
            if tensor.name.startswith("blk."):
                number = tensor.name[4 : tensor.name.find(".", 4)]
                if number.isdecimal() and int(number) < self.layers:
                    layers[int(number)].append(tensor)
        return layers

    def layer_kinds(self, sizes: bool) -> list[Hashable]:
        """Equal values for layers that have equal tensors and widths; with `sizes`, also in the tensors' types."""
        return [
            (
                self.heads[layer],
                self.kv_heads[layer],
                self.key_lengths[layer],
                self.value_lengths[layer],
                self.sliding[layer],
                *((tensor.name[5 + len(str(layer)) :], tensor.shape, sizes and tensor.type_id) for tensor in tensors),
            )
            for layer, tensors in enumerate(self._by_layer)
        ]

    def has(self, name: str) -> bool:
        return name in self._by_name

    @property
    def tied(self) -> bool:
        """Whether the output layer is a second use of the token embedding."""
        return not self.has("output.weight")

    def integer(self, key: str, default: int = 0) -> int:
        value = self.keys.get(key)
        return int(value) if isinstance(value, int | float) else default

    def number(self, key: str, default: float = 0.0) -> float:
        value = self.keys.get(key)
        return float(value) if isinstance(value, int | float) else default

    def key_width(self, layer: int) -> int:
        """Elements of one token's keys in this layer (n_embd_k_gqa)."""
        return self.key_lengths[layer] * self.kv_heads[layer]

    def value_width(self, layer: int) -> int:
        return self.value_lengths[layer] * self.kv_heads[layer]

    @property
    def graph_layers(self) -> int:
        """The layers that are computed: all but those that predict further tokens."""
        return self.layers - self.layers_nextn


def from_gguf(header: Gguf) -> Shape:
    """GgufError where a key that every model needs is missing or has the wrong kind."""
    architecture = header.architecture
    if not architecture:
        raise GgufError("the file does not name its architecture (`general.architecture`)")
    prefix = architecture + "."
    keys = {name.removeprefix(prefix): value for name, value in header.metadata.items() if name.startswith(prefix)}
    layers = _required(keys, "block_count", architecture)
    if not 0 < layers <= 512:
        raise GgufError(f"`{prefix}block_count` is {layers}; llama.cpp takes 1 to 512")
    embedding = _required(keys, "embedding_length", architecture)
    heads = _per_layer(keys, "attention.head_count", layers, 0)
    window, sliding = _sliding(architecture, keys, layers)
    key_lengths, value_lengths = _head_lengths(keys, heads, embedding, sliding)
    experts, used = _integer(keys, "expert_count", 0), _integer(keys, "expert_used_count", 0)
    if experts and not 1 <= used <= experts:
        raise GgufError(f"`{prefix}expert_used_count` is {used}; of {experts} experts 1 to {experts} are used")
    nextn = min(_integer(keys, "nextn_predict_layers", 0), layers - 1)
    return Shape(
        architecture=architecture,
        layers=layers,
        layers_nextn=nextn,
        embedding_length=embedding,
        vocabulary=_vocabulary(header, keys),
        context_train=_required(keys, "context_length", architecture),
        heads=heads,
        kv_heads=_per_layer(keys, "attention.head_count_kv", layers, heads),
        key_lengths=key_lengths,
        value_lengths=value_lengths,
        feed_forward=_per_layer(keys, "feed_forward_length", layers, 0),
        window=window,
        window_kind=_WINDOWS[architecture].kind if any(sliding) else "none",
        sliding=sliding,
        experts=experts,
        experts_used=used,
        mla="attention.key_length_mla" in keys,
        has_cache=architecture not in _NO_CACHE,
        pooling=_integer(keys, "pooling_type", 0),
        quantization=header.quantization,
        tensors=header.tensors,
        keys=keys,
    )


def _integer(keys: Mapping[str, Value], key: str, default: int) -> int:
    value = keys.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else default


def _required(keys: Mapping[str, Value], key: str, architecture: str) -> int:
    value = _integer(keys, key, -1)
    if value < 0:
        raise GgufError(f"the metadata key `{architecture}.{key}` is missing, or not a number")
    return value


def _per_layer(keys: Mapping[str, Value], key: str, layers: int, default: int | tuple[int, ...]) -> tuple[int, ...]:
    value = keys.get(key)
    if isinstance(value, Array):
        if value.values is None or value.length < layers:
            raise GgufError(f"`{key}` has {value.length} entries for {layers} layers")
        return _whole(key, value.values[:layers])
    if value is None:
        return default if isinstance(default, tuple) else (default,) * layers
    return (_integer(keys, key, 0),) * layers


def _whole(key: str, values: Iterable[object]) -> tuple[int, ...]:
    numbers = tuple(value for value in values if isinstance(value, int) and 0 <= value < 1 << 40)
    if len(numbers) != len(tuple(values)):
        raise GgufError(f"`{key}` holds something that is not a length")
    return numbers


def _vocabulary(header: Gguf, keys: Mapping[str, Value]) -> int:
    for name in ("output.weight", "token_embd.weight"):
        for tensor in header.tensors:
            if tensor.name == name and len(tensor.shape) == 2:
                return tensor.shape[1]
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.length if isinstance(tokens, Array) else _integer(keys, "vocab_size", 0)


def _sliding(architecture: str, keys: Mapping[str, Value], layers: int) -> tuple[int, tuple[bool, ...]]:
    """The window's tokens and which layers slide. Phi 3's window is switched off (src/models/phi3.cpp:15)."""
    rule = _WINDOWS.get(architecture)
    none = (0, (False,) * layers)
    if rule is None or (architecture == "exaone4" and layers != 64):
        return none
    window = _integer(keys, "attention.sliding_window", rule.default)
    if window == 0:
        return none
    window = rule.forced or window
    pattern = keys.get("attention.sliding_window_pattern")
    if rule.by_array:
        if not isinstance(pattern, Array) or pattern.values is None:
            return none
        return window, tuple(bool(value) for value in pattern.values[:layers])
    period = _integer(keys, "attention.sliding_window_pattern", rule.period)
    if period == 0:
        return window, (True,) * layers
    full = 0 if rule.dense_first else period - 1
    return window, tuple(layer % period != full for layer in range(layers))


def _head_lengths(
    keys: Mapping[str, Value], heads: tuple[int, ...], embedding: int, sliding: tuple[bool, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    default = embedding // heads[0] if heads[0] else 0
    lengths = []
    for kind in ("key", "value"):
        full = _integer(keys, f"attention.{kind}_length", default)
        swa = _integer(keys, f"attention.{kind}_length_swa", full)
        lengths.append(tuple(swa if slides else full for slides in sliding))
    return lengths[0], lengths[1]
