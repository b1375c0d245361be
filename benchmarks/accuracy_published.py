"""What others logged on real cards, against what the memory model says of the same models.

The logged figures come from public logs. Caches must be equal; compute buffers on CUDA must not be below the log.
Lengths of the models in tests/memory/published.py are described there. Those in CACHES were not read from the models'
files: where a log does not name them they were chosen so that its figures come out, which tests the formula over
context, slots and cache type, and not the reading of such a header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.memory.gguf import parse
from llmctl.core.memory.needs import Model, Needs
from llmctl.core.memory.quantize import quantized
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import Shape, from_gguf
from tests.memory import gguf_bytes, published
from tests.memory.computing import shape_of

MIB = 1 << 20
Key = int | list[int]


@dataclass(frozen=True)
class Row:
    """`rule` says what holds: equal (to the last digit logged) or bound (never below)."""

    what: str
    part: str
    logged: float
    ours: float
    rule: str

    @property
    def holds(self) -> bool:
        return abs(self.ours - self.logged) < 0.0101 if self.rule == "equal" else self.ours > self.logged - 0.0101

    @property
    def line(self) -> str:
        verdict = ("equal" if self.rule == "equal" else "not below") if self.holds else "**NO**"
        if self.rule == "bound" and self.holds:
            verdict += f", {self.ours / self.logged - 1:+.1%}"
        return f"| {self.what} | {self.part} | {self.logged:,.2f} | {self.ours:,.2f} | {verdict} |"


# Keys that the cache follows from, reconstructed (see above).
CACHES: dict[str, tuple[str, dict[str, Key]]] = {
    "DeepSeek Coder V2 16B Lite": (
        "deepseek2",
        {"block_count": 27, "attention.head_count": 16, "attention.head_count_kv": 16, "attention.key_length": 192,
         "attention.value_length": 128},
    ),
    "Gemma 4 12B": (
        "gemma4",
        {"block_count": 48, "attention.head_count": 16, "attention.key_length": 512, "attention.value_length": 512,
         "attention.head_count_kv": [1 if layer % 6 == 5 else 8 for layer in range(48)],
         "attention.key_length_swa": 256, "attention.value_length_swa": 256, "attention.sliding_window": 1024,
         "attention.sliding_window_pattern": [int(layer % 6 != 5) for layer in range(48)]},
    ),
    "Qwen3.6 27B": (
        "qwen35",
        {"block_count": 64, "attention.head_count": 24, "attention.head_count_kv": 4, "attention.key_length": 256,
         "attention.value_length": 256, "full_attention_interval": 4, "ssm.conv_kernel": 4, "ssm.inner_size": 6144,
         "ssm.state_size": 128, "ssm.group_count": 16},
    ),
    "Qwen3.5 9B": (
        "qwen35",
        {"block_count": 32, "attention.head_count": 16, "attention.head_count_kv": 4, "attention.key_length": 256,
         "attention.value_length": 256, "full_attention_interval": 4, "ssm.conv_kernel": 4, "ssm.inner_size": 4096,
         "ssm.state_size": 128, "ssm.group_count": 16},
    ),
    "GLM 5.2": (
        "glm-dsa",
        {"block_count": 78, "attention.head_count": 64, "attention.head_count_kv": 1, "attention.key_length": 576,
         "attention.value_length": 512, "attention.key_length_mla": 256, "attention.value_length_mla": 256},
    ),
}  # fmt: skip
# What was logged of these: settings, MiB of keys and values, MiB of state.
LOGGED = (
    *(
        ("DeepSeek Coder V2 16B Lite", Settings(context), logged, None)
        for context, logged in ((2048, 540.0), (4096, 1080.0), (8192, 2160.0))
    ),
    ("Gemma 4 12B", Settings(2048, 4, cache_k="q8_0", cache_v="q8_0", unified=True), 833.0, None),
    *(
        ("Gemma 4 12B", Settings(context, cache_k=kind, cache_v=kind), logged, None)
        for context, kind, logged in (
            (8192, "q8_0", 323.0), (16384, "q8_0", 391.0), (4096, "q8_0", 289.0), (8192, "q4_0", 171.0),
            (8192, "f16", 608.0),
        )
    ),
    ("Qwen3.6 27B", Settings(200192, cache_k="q8_0", cache_v="q8_0"), 6647.0, 149.62),
    ("Qwen3.5 9B", Settings(131072, 2, cache_k="q8_0", cache_v="q8_0"), 4352.0, 100.5),
    ("GLM 5.2", Settings(768000), 65812.5, None),
)  # fmt: skip


def keyed(architecture: str, keys: Mapping[str, Key]) -> Shape:
    """A shape without tensors."""
    numbers = {"context_length": 1 << 20, "embedding_length": 4096, "feed_forward_length": 4096, **keys}
    packed = [gguf_bytes.key("general.architecture", gguf_bytes.STRING, gguf_bytes.text(architecture))]
    for name, value in numbers.items():
        if isinstance(value, int):
            kind, data = gguf_bytes.U32, struct.pack("<I", value)
        else:
            kind = gguf_bytes.ARRAY
            data = gguf_bytes.array(gguf_bytes.U32, len(value), struct.pack(f"<{len(value)}I", *value))
        packed.append(gguf_bytes.key(f"{architecture}.{name}", kind, data))
    file = gguf_bytes.file(packed, [])
    return from_gguf(parse(lambda offset, length: file[offset : offset + length], len(file)))


def needs(shape: Shape, settings: Settings, on_gpu: int | None = None) -> Needs:
    on_gpu = shape.layers + 1 if on_gpu is None else on_gpu
    return Model(shape, 0).needs(settings, Placement.last(shape.layers, on_gpu))


def caches() -> Iterator[Row]:
    for name, settings, logged, state in LOGGED:
        found = needs(keyed(*CACHES[name]), settings)
        slots = f", {settings.parallel} slots" if settings.parallel > 1 else ""
        unified = ", one cache" if settings.unified else ""
        words = f"{name}, context {settings.context * settings.parallel:,}, {settings.cache_k}{slots}{unified}"
        yield Row(words, "cache", logged, mebibytes(found.kv), "equal")
        if state is not None:
            yield Row(words, "state", state, mebibytes(found.state), "equal")


def mebibytes(sizes: Mapping[int, int] | None, device: int = 1) -> float:
    return float("nan") if sizes is None else sizes.get(device, 0) / MIB


def as_published(folder: Path, name: str, quantization: str) -> Shape:
    """The published shape with the types that llama-quantize gives it."""
    path = folder / f"{name}.gguf"
    return quantized(shape_of(path if path.exists() else published.write(published.MODELS[name], path)), quantization)


def whole_models(folder: Path) -> Iterator[Row]:
    shape = as_published(folder, "qwen3-4b", "Q4_K_M")
    found, words = needs(shape, Settings(2048, 4, unified=True)), "Qwen3 4B Q4_K_M, context 8,192, 4 slots, one cache"
    yield Row(words, "weights, GPU", 2375.91, mebibytes(found.weights), "equal")
    yield Row(words, "weights, host", 304.28, mebibytes(found.weights, 0), "equal")
    yield Row(words, "cache", 1152.0, mebibytes(found.kv), "equal")
    yield Row(words, "compute, GPU", 85.01, mebibytes(found.compute), "bound")
    yield Row(words, "compute, host", 28.02, mebibytes(found.compute, 0), "bound")
    # Passed on as Q4_K_M; it is the size of 4.5-bit layers with a Q6_K output, which llama-quantize calls Q4_0.
    shape = as_published(folder, "llama-3.1-8b", "Q4_0")
    found, words = needs(shape, Settings(131072)), "Llama 3.1 8B in 4.5 bits, context 131,072"
    yield Row(words, "weights, GPU", 4155.99, mebibytes(found.weights), "equal")
    yield Row(words, "weights, host", 281.81, mebibytes(found.weights, 0), "equal")
    yield Row(words, "cache", 16384.0, mebibytes(found.kv), "equal")
    found = needs(as_published(folder, "gpt-oss-120b", "Q8_0"), Settings(16384, 4, unified=True))
    yield Row("gpt-oss 120B, context 65,535, 4 slots, one cache", "cache", 2340.0, mebibytes(found.kv), "equal")
    for name, words, full, partial in (
        ("qwen3-0.6b", "Qwen3 0.6B Q8_0, context 4,096, q8_0", 32.09, 41.64),
        ("olmoe-1b-7b", "OLMoE 1B 7B Q8_0, context 4,096, q8_0", 64.09, 172.37),
    ):
        shape, settings = as_published(folder, name, "Q8_0"), Settings(4096, cache_k="q8_0", cache_v="q8_0")
        yield Row(words, "compute, all layers on the GPU", full, mebibytes(needs(shape, settings).compute), "bound")
        some = needs(shape, settings, shape.layers // 2)
        yield Row(words, "compute, some of them", partial, mebibytes(some.compute), "bound")


def llama_as_q4_k_m(folder: Path) -> str:
    found = needs(as_published(folder, "llama-3.1-8b", "Q4_K_M"), Settings(4096))
    return f"{mebibytes(found.weights):,.2f} MiB on the GPU"


def table(folder: Path) -> Iterator[str]:
    yield "| case | part | logged | predicted | |"
    yield "| --- | --- | ---: | ---: | --- |"
    for row in (*caches(), *whole_models(folder)):
        yield row.line
