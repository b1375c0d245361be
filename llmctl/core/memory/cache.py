"""What the model remembers of a conversation: keys and values of each layer, and the state of recurrent ones.

llama.cpp b10760: src/llama-kv-cache.cpp:60-240, src/llama-kv-cache-iswa.cpp:73, src/llama-memory-recurrent.cpp:99,
src/llama-hparams.cpp:178-240, src/llama-model.cpp:2213 (which layers have what).
"""

from __future__ import annotations

from collections import Counter

from llmctl.core.memory.ggml import TensorType, tensor_type
from llmctl.core.memory.gguf import Array
from llmctl.core.memory.settings import Placement, Settings, padded
from llmctl.core.memory.shape import Shape
from llmctl.core.memory.weights import ALIGNMENT, CUDA_ROW

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
STATE_BYTES = 4
# Their recurrent layers are those without key-value heads.
RECURRENT_BY_HEADS = frozenset({"jamba", "granitehybrid", "lfm2", "lfm2moe", "plamo2", "kimi-linear"})
# Every layer but each Nth is recurrent; the file may name N.
RECURRENT_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
RECURRENT_ONLY = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
NEMOTRON = frozenset({"nemotron_h", "nemotron_h_moe"})
# The last layers read the cache of earlier ones.
GEMMA3N_LAYERS_WITH_CACHE = 20
# Seen equal to llama.cpp's own figures (tests/memory).
PROVED_CACHES = frozenset(
    {
        *(
            "llama",
            "mistral3",
            "qwen2",
            "qwen3",
            "qwen3moe",
            "gemma2",
            "gemma3",
            "gpt-oss",
            "phi3",
            "glm4",
            "command-r",
        ),
        *("bert", "nomic-bert", "gemma-embedding"),
    }
)
# Layers that predict further tokens have no cache of their own.
NO_NEXTN_CACHE = frozenset({"step35", "hy_v3", "glm-dsa", "deepseek32", "mimo2", *RECURRENT_BY_INTERVAL})


def kv_bytes(shape: Shape, settings: Settings, placement: Placement, *, sliding: bool | None = None) -> Counter[int]:
    """Bytes of keys and values by device, all streams together; `sliding` asks for one kind of layers only."""
    total: Counter[int] = Counter()
    if not shape.has_cache:
        return total
    kinds = tensor_type(TYPES[settings.cache_k]), tensor_type(TYPES[settings.cache_v])
    # Without flash attention the values lie transposed, every layer as wide as the widest.
    widest = max((shape.value_width(layer) for layer in range(shape.layers)), default=0)
    for layer in range(shape.layers):
        if not has_keys(shape, layer) or (sliding is not None and shape.sliding[layer] != sliding):
            continue
        device = placement.layers[layer]
        cells = settings.window_cells(shape.window) if shape.sliding[layer] else settings.cells
        rows = cells * settings.streams
        total[device] += _tensor_bytes(kinds[0], shape.key_width(layer), rows, settings.backend, device)
        if not shape.mla:
            width = widest if settings.flash_attention == "off" else shape.value_width(layer)
            total[device] += _tensor_bytes(kinds[1], width, rows, settings.backend, device)
    return total


def state_bytes(shape: Shape, settings: Settings, placement: Placement) -> Counter[int]:
    """Bytes of recurrent and convolution state by device; always 32-bit, one for each slot."""
    total: Counter[int] = Counter()
    convolution, recurrent = _state_elements(shape)
    for layer in range(shape.graph_layers):
        if not is_recurrent(shape, layer):
            continue
        device = placement.layers[layer]
        alignment = ALIGNMENT[settings.backend if device else "cpu"]
        for elements in (convolution, recurrent):
            total[device] += padded(elements * settings.parallel * STATE_BYTES, alignment)
    return total


def has_keys(shape: Shape, layer: int) -> bool:
    """Whether this layer keeps keys and values of its own."""
    architecture = shape.architecture
    if layer >= shape.graph_layers and architecture in NO_NEXTN_CACHE:
        return False
    if architecture == "gemma3n":
        return layer < GEMMA3N_LAYERS_WITH_CACHE
    if architecture == "gemma4":
        return layer < shape.layers - shape.integer("attention.shared_kv_layers")
    if architecture in NEMOTRON:
        return shape.kv_heads[layer] > 0 and shape.feed_forward[layer] == 0
    return architecture == "falcon-h1" or not is_recurrent(shape, layer)


def is_recurrent(shape: Shape, layer: int) -> bool:
    architecture = shape.architecture
    if architecture in RECURRENT_ONLY or architecture == "falcon-h1":
        return True
    if architecture in RECURRENT_BY_HEADS:
        return shape.kv_heads[layer] == 0
    if architecture in NEMOTRON:
        return shape.kv_heads[layer] == 0 and shape.feed_forward[layer] == 0
    if architecture in RECURRENT_BY_INTERVAL:
        return (layer + 1) % shape.integer("full_attention_interval", 4) != 0
    return False


def _state_elements(shape: Shape) -> tuple[int, int]:
    """Elements of one slot's convolution and recurrent state in one layer (n_embd_r, n_embd_s)."""
    embedding, heads = shape.embedding_length, max(shape.heads)
    if head := shape.integer("wkv.head_size"):
        return shape.integer("token_shift_count", 2) * embedding, embedding * head
    if taps := shape.integer("shortconv.l_cache"):
        return embedding * (taps - 1), 0
    kernel = shape.integer("ssm.conv_kernel")
    if head := shape.integer("kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * heads * head, head * head * heads
    inner, states = shape.integer("ssm.inner_size"), shape.integer("ssm.state_size")
    groups = shape.integer("ssm.group_count")
    return max(kernel - 1, 0) * (inner + 2 * groups * states), states * inner


def _tensor_bytes(kind: TensorType, width: int, rows: int, backend: str, device: int) -> int:
    block = kind.block_bytes or 0
    size = width * rows // kind.block_elements * block
    if backend != "cuda" or not device:
        return padded(size, ALIGNMENT["cpu"])
    if kind.block_elements > 1:
        size += -width % CUDA_ROW // kind.block_elements * block
    return padded(size, ALIGNMENT["cuda"])


def cache_known(shape: Shape) -> bool:
    """Whether the keys say what the cache of this architecture takes."""
    needed = not any(
        isinstance(shape.keys.get(key), Array) for key in ("attention.key_length", "attention.value_length")
    )
    return needed and (not shape.has_cache or all(head > 0 for head in shape.heads) or any(shape.kv_heads))
