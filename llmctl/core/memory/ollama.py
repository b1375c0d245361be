"""What Ollama decides before llama.cpp is asked: the batch, the slots, and whether one GPU is enough.

ollama v0.34.0 server/sched.go:494-560 and 797-935, llm/llama_server.go:75-103 and 2691; v0.33.0 decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.memory.gguf import Array
from llmctl.core.memory.shape import Shape

MIB, GIB = 1 << 20, 1 << 30
LARGE, MEDIUM, DEFAULT, CONSTRAINED = 2048, 1024, 512, 256
# Above this share of the free memory, in percent, the batch is stepped down.
HEADROOM = {LARGE: 60, MEDIUM: 75}
SURCHARGE = {LARGE: 2 * GIB, MEDIUM: 768 * MIB}
SHARE_OF_FREE = 80
# llama-server keeps this much free on each device unless it is told otherwise (common/common.h:473).
DEFAULT_MARGIN = 1024 * MIB
ONE_SLOT = frozenset(
    {
        *("mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next"),
        *("lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "nemotron_h_omni"),
    }
)
# Whose projector Ollama loads out of the model's own file, where it has vision tensors (llm/llama_server.go:877-895).
PROJECTOR_INSIDE = frozenset(
    {
        *("gemma3", "gemma4", "qwen35", "qwen35moe", "qwen25vl", "qwen3vl", "qwen3vlmoe"),
        *("mistral3", "deepseekocr", "glmocr", "llama4", "nemotron_h_omni"),
    }
)


def reads_projector_inside(shape: Shape) -> bool:
    return shape.architecture in PROJECTOR_INSIDE and any(tensor.name.startswith("v.") for tensor in shape.tensors)


def is_embedding(shape: Shape) -> bool:
    """Whether Ollama takes the model for one that makes vectors and no text."""
    return "pooling_type" in shape.keys


def flash_attention(setting: str, backend: str) -> str:
    """What llama-server is told where the server's setting is `auto`: off for a device that Ollama does not list
    as able to (v0.34.0 ml/device.go:301), which an RPC device is not."""
    return "off" if setting == "auto" and backend == "rpc" else setting


def slots(shape: Shape, parallel: int) -> int:
    """The slots that the model gets of those that the server has."""
    return 1 if is_embedding(shape) or shape.architecture in ONE_SLOT else parallel


def context(shape: Shape, asked: int) -> int:
    """Tokens of one slot: never more than the model was trained for."""
    return min(asked, shape.context_train) if shape.context_train else asked


def predicted_bytes(shape: Shape, file_bytes: int, context_all: int) -> int:
    """Ollama's own guess, which decides the batch and the GPU and nothing else."""
    given = shape.keys.get("attention.head_count_kv")
    alone = given if isinstance(given, int) else 1
    kv_heads = min(shape.kv_heads) if isinstance(given, Array) else alone
    heads = max(shape.heads)
    head_length = shape.embedding_length // heads if heads else 0
    return file_bytes + 2 * shape.layers * (kv_heads or 1) * head_length * context_all * 2


def batch(
    shape: Shape,
    file_bytes: int,
    context_one: int,
    parallel: int,
    free_bytes: Sequence[int],
    flash_attention: str,
    cuda: bool,
) -> int:
    """The batch for `parallel` slots of `context_one` tokens on GPUs with `free_bytes` free."""
    whole = context_one * parallel
    if is_embedding(shape):
        return min(LARGE, whole) if whole else LARGE
    if flash_attention == "off" and cuda and free_bytes:
        return CONSTRAINED if whole > 4096 and min(free_bytes) <= 8 * GIB else DEFAULT
    chosen = LARGE if whole > 32768 else MEDIUM if whole > 4096 else DEFAULT
    needed, free = predicted_bytes(shape, file_bytes, whole), sum(free_bytes)
    while chosen > DEFAULT and not _has_room(chosen, needed, free):
        chosen //= 2
    return chosen


def _has_room(chosen: int, needed: int, free: int) -> bool:
    if not free:
        return True
    limit = free * SHARE_OF_FREE // 100
    return needed <= min(limit, free * HEADROOM[chosen] // 100) and SURCHARGE[chosen] <= limit - needed


def one_gpu(shape: Shape, file_bytes: int, context_all: int, free_bytes: Sequence[int]) -> int | None:
    """Which of several GPUs Ollama uses alone, because its guess is at most 80 % of what is free there."""
    if len(free_bytes) < 2:
        return None
    needed = predicted_bytes(shape, file_bytes, context_all)
    most = max(range(len(free_bytes)), key=lambda index: free_bytes[index])
    return most if needed <= free_bytes[most] * SHARE_OF_FREE // 100 else None
