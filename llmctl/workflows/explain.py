"""What many guides say about local models, what is true, and what it comes to on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.memory.cache import TYPES
from llmctl.core.memory.ggml import tensor_type
from llmctl.core.memory.settings import Placement, Settings
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.core.memory.needs import Model
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile
    from llmctl.server import Server
    from llmctl.workflows.fit import Source

GIB = 1 << 30
# Llama 3.3 70B, by its config.json, and its Q4_K_M file: what those beliefs are told of.
LAYERS, KV_HEADS, HEAD, PARAMETERS = 80, 8, 128, 70_553_706_496
Q4_FILE_BYTES, Q4_WEIGHTS_BYTES = 42_500_000_000, 39_939 << 20
LLAMA_70B = "Llama 3.3 70B"
# ggml's types of three bits and a little: Q3_K and IQ3_XXS.
THREE_BITS = {"Q3_K": 11, "IQ3_XXS": 18}
CARD_BYTES = 24 * GIB
STEPS = (1, 2, 4)


@dataclass(frozen=True)
class Figure:
    """One number. `basis`: header, of the profile's model; formula, with the inputs that its words name; stated, by
    whom `source` names or the maker of the card; nvml."""

    what: str
    value_bytes: int
    basis: str


@dataclass(frozen=True)
class Misbelief:
    """`belief` is what is said, `truth` what is so, `source` where that is from. `here` is about this machine's
    profile, empty where there is nothing to say of it."""

    id: str
    belief: str
    truth: str
    source: str
    figures: tuple[Figure, ...] = ()
    here: str = ""


@dataclass(frozen=True)
class Explained:
    """`model` is the one whose header the figures are of, None where there is none here."""

    profile: str
    model: str | None
    context: int
    misbeliefs: tuple[Misbelief, ...]


def explain(server: Server, profile: Profile, lock: Lock, gpus: Mapping[str, int] | None) -> Explained:
    """`gpus` are the cards of this machine with their bytes, None where that is not known."""
    source = header(server, profile, lock)
    context = profile.models[0].context or profile.server.context if profile.models else profile.server.context
    return Explained(
        profile.reference,
        source.name if source else None,
        context,
        (
            decompressed(source),
            quadratic(source, profile, context),
            num_ctx(profile, context),
            flash_attention(profile, gpus),
            three_bits(context, profile, gpus or {}),
            keep_alive(profile),
        ),
    )


def cards() -> dict[str, int] | None:
    """The cards of this machine with their bytes; None where the driver tells of none, nor that there are none."""
    from llmctl.core.checks.facts import NotGathered
    from llmctl.system import nvml
    from llmctl.workflows.gather import within

    try:
        found = within("gpu", nvml.gpus)
    except NotGathered:
        return None
    if not found.gpus and found.unavailable not in {None, nvml.NO_DRIVER}:
        return None
    return {f"GPU {gpu.index} ({gpu.name})": gpu.total_bytes for gpu in found.gpus}


def header(server: Server, profile: Profile, lock: Lock) -> Source | None:
    """The header of the profile's first model, where its weights are on this disk."""
    from llmctl.system import gguf_file
    from llmctl.workflows import store as stores
    from llmctl.workflows.fit import Source, find_spec

    if not profile.models:
        return None
    spec = profile.models[0]
    try:
        store = stores.place(server, profile).store
        pin = lock.pin(spec.name)
        if pin is not None and (blob := store.blob(pin.weights_digest)).is_file():
            return Source(spec.name, gguf_file.header(blob), digest=pin.weights_digest)
        return find_spec(spec, store.path, server.environ, here_only=True)
    except LlmctlError:
        return None


def decompressed(source: Source | None) -> Misbelief:
    if source is None:
        named = f"{LLAMA_70B} Q4_K_M"
        figures = (
            Figure(f"the file of {named}", Q4_FILE_BYTES, "stated"),
            Figure("its weights on the GPU, as llama.cpp prints them", Q4_WEIGHTS_BYTES, "stated"),
        )
    else:
        model = source.model()
        everything = Placement.last(model.shape.layers, model.shape.layers + 1)
        weights = sum((model.weights("cuda").on(everything) or {}).values())
        figures = (
            Figure(f"the file of {source.name}", source.header.size_bytes, "header"),
            Figure("its weights in memory, all devices together", weights, "header"),
        )
    return Misbelief(
        "decompressed",
        "the weights decompress to 22 GB (or to any other size) when they are loaded",
        "They lie in memory as they lie in the file, in blocks of some bits a weight. A kernel unpacks a block in its "
        "registers as it multiplies, and what it unpacked is gone again. Only header and tokenizer stay behind, "
        "and an embedding that is also the output layer lies on two devices.",
        "llama.cpp b10760 src/llama-model-loader.cpp: a tensor is read or mapped with its type",
        figures,
    )


def quadratic(source: Source | None, profile: Profile, context: int) -> Misbelief:
    kind = profile.server.kv_cache
    basis = "formula" if source is None else "header"
    contexts = [context * step for step in STEPS]
    sizes = [cache_bytes(source.model() if source else None, each, kind) for each in contexts]
    whose = source.name if source else f"{LLAMA_70B} (80 layers, 8 KV heads of 128)"
    return Misbelief(
        "quadratic",
        "the KV cache grows quadratically with the context",
        "It grows by the same bytes with every token: 2 x layers x KV heads x head size x bytes of an element. Twice "
        "the context is twice the cache (a sliding window stops growing at its length). What is quadratic in a naive "
        "implementation is the work of attention, and flash attention never stores that matrix.",
        "llama.cpp b10760 src/llama-kv-cache.cpp:60-240",
        tuple(
            Figure(f"{kind} cache of {whose} at {each:,} tokens", size, basis)
            for each, size in zip(contexts, sizes, strict=True)
        ),
    )


def cache_bytes(model: Model | None, context: int, kind: str) -> int:
    """Keys and values of one slot, of a model or of Llama 3.3 70B."""
    element = tensor_type(TYPES[kind])
    if model is None:
        elements = 2 * LAYERS * KV_HEADS * HEAD * context
        return elements // element.block_elements * (element.block_bytes or 0)
    from llmctl.core.memory.cache import kv_bytes

    everything = Placement.last(model.shape.layers, model.shape.layers + 1)
    settings = Settings(context, cache_k=kind, cache_v=kind, backend="cuda")
    return sum(kv_bytes(model.shape, settings, everything).values())


def num_ctx(profile: Profile, context: int) -> Misbelief:
    return Misbelief(
        "num-ctx",
        "`ollama run --num-ctx 16384` sets the context",
        "There is no such flag. The context is OLLAMA_CONTEXT_LENGTH of the server, PARAMETER num_ctx of the model, or "
        "`options.num_ctx` of a request; a request that asks for another one than is loaded reloads the model, for "
        "itself and for everybody after it.",
        "ollama v0.33.0 cmd/cmd.go (the flags of run), server/sched.go:1381-1431",
        here=f"the profile {profile.name} has {context:,} tokens; what others take: llmctl fit --context 8192",
    )


def flash_attention(profile: Profile, gpus: Mapping[str, int] | None) -> Misbelief:
    shown = ", ".join(gpus or ()) or "no NVIDIA card that NVML shows"
    had = shown if gpus is not None else "cards that cannot be told: NVML does not tell of them"
    return Misbelief(
        "flash-attention",
        "flash attention needs a newer card than an RTX 3090",
        "It runs on Ampere, which the RTX 3090 is. A quantized KV cache needs it, and Ollama leaves it to llama.cpp "
        "unless it is told (`auto`).",
        "llama.cpp b10760 ggml/src/ggml-cuda/fattn.cu: its kernels use the tensor cores that Ampere has",
        here=f"this machine has {had}; the profile says flash_attention: {profile.server.flash_attention}, "
        f"kv_cache: {profile.server.kv_cache}",
    )


def three_bits(context: int, profile: Profile, gpus: Mapping[str, int]) -> Misbelief:
    figures = [
        Figure(f"{PARAMETERS / 1e9:.2f} billion weights in {name}", packed(number), "formula")
        for name, number in THREE_BITS.items()
    ]
    figures.append(
        Figure(
            f"and the {profile.server.kv_cache} cache at {context:,} tokens",
            cache_bytes(None, context, profile.server.kv_cache),
            "formula",
        )
    )
    figures.append(Figure("a card of 24 GB has in all", CARD_BYTES, "stated"))
    figures += [Figure(f"{name} has in all", total, "nvml") for name, total in gpus.items()]
    return Misbelief(
        "three-bits",
        "a 70B model in 3 bits fits one card of 24 GB",
        "Three bits are three and a fraction: every block has scales of its own, and some tensors stay larger. The "
        "weights alone are more than the card, before cache and buffers. `llmctl fit` says what does fit, and how slow "
        "it is with layers in host memory.",
        "ggml-common.h of llama.cpp b10760: 110 bytes for 256 weights in Q3_K, 98 in IQ3_XXS",
        tuple(figures),
    )


def packed(type_number: int) -> int:
    """Every weight of Llama 3.3 70B in one type: less than any real file of it."""
    kind = tensor_type(type_number)
    return PARAMETERS // kind.block_elements * (kind.block_bytes or 0)


def keep_alive(profile: Profile) -> Misbelief:
    names = ", ".join(model.name for model in profile.resident) or "nothing"
    return Misbelief(
        "keep-alive",
        "keep_alive -1 keeps a model loaded, whatever comes",
        "It only stops the clock. The model goes when another one needs the room, when a request brings other options "
        "or a keep_alive of its own, after an out-of-memory error of any model, with its runner, and with the server; "
        "after a boot nothing loads it.",
        "ollama v0.33.0 server/sched.go:1381-1431, 1632-1664",
        here=f"the profile keeps resident: {names}; the guard brings it back: llmctl guard, or llmctl install-service",
    )
