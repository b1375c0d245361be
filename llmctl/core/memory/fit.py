"""The verdict on one model: where it would lie, what it takes there, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.memory import speed as roofline
from llmctl.core.memory.cache import PROVED_CACHES, cache_known
from llmctl.core.memory.decide import Asked, Decision, decide
from llmctl.core.memory.needs import Model
from llmctl.core.memory.quantize import MIXTURES
from llmctl.core.memory.solve import Cell, Change, as_quantized, fits_and_uses, largest_context, ways_out
from llmctl.core.memory.token_time import Read

HOST = 0
PROMPT_TOKENS = 1024
# Ollama 0.33.0 and 0.34.0 carry llama.cpp b10488 and b10760, on whose own words the rules were proved.
PROVED_VERSIONS = ("0.33.0", "0.34.0")
DEFAULT_VERSION = "0.34.0"
# The most that a CUDA process was seen to hold beyond llama.cpp's buffers, before this machine has shown its own:
# 330 MiB (unsloth#6718); elsewhere 104 to 315 MiB a card.
CUDA_RUNTIME_BYTES = 330 << 20


@dataclass(frozen=True)
class ModelFacts:
    """What the header says. `size_bytes` is of the weights' file or files."""

    name: str
    architecture: str
    quantization: str | None
    parameters: int
    size_bytes: int
    layers: int
    context_train: int


@dataclass(frozen=True)
class Layers:
    """Counted as llama.cpp prints them: the output layer is one of them. `overflowing` have experts elsewhere."""

    on_gpu: int | None
    total: int
    overflowing: int = 0


@dataclass(frozen=True)
class DeviceFit:
    """One device. `free_bytes` is before the load and before the margin; `used_bytes` is all that is added."""

    name: str
    kind: str
    total_bytes: int | None
    free_bytes: int | None
    weights_bytes: int | None
    kv_bytes: int | None
    state_bytes: int | None
    compute_bytes: int | None
    runtime_bytes: int
    used_bytes: int | None


@dataclass(frozen=True)
class Exactness:
    weights: str
    kv: str
    compute: str


@dataclass(frozen=True)
class WayOut:
    """A change with which everything fits, as a command."""

    words: str
    command: str


@dataclass(frozen=True)
class Fit:
    """`max_context` is of one slot: 0 where none fits in full, None where unknown."""

    model: ModelFacts
    context: int
    parallel: int
    batch: int
    kv_cache: str
    flash_attention: str
    engine: str
    verdict: str
    layers: Layers
    devices: tuple[DeviceFit, ...]
    max_context: int | None
    exactness: Exactness
    speed: roofline.Speed | None
    margin_bytes: int
    ways_out: tuple[WayOut, ...] = ()
    notes: tuple[str, ...] = ()
    table: tuple[Cell, ...] = ()
    slots: tuple[Cell, ...] = ()
    quantizations: tuple[Quantized, ...] = ()


@dataclass(frozen=True)
class Quantized:
    """One quantization of the model: `size_bytes` of the file as llama-quantize would make it, and its verdict."""

    quantization: str
    bits_per_weight: float
    size_bytes: int
    used_bytes: int | None
    fits: bool | None


@dataclass(frozen=True)
class Typed:
    """A command line as it was typed, so that a way out can be given as the same one with a change."""

    words: str
    options: Mapping[str, str]

    def changed(self, change: Sequence[str]) -> str:
        options = {**self.options, **dict(zip(change[::2], change[1::2], strict=True))}
        return " ".join((self.words, *(f"{name} {value}" for name, value in options.items())))


def judge(model: Model, asked: Asked, name: str, version: str | None, typed: Typed) -> Fit:
    """Everything about one model, with the ways out as commands."""
    decision = decide(model, asked)
    largest = largest_context(model, asked)
    changes: tuple[Change, ...] = ()
    if decision.verdict in {"partial", "no"} and asked.cards:
        changes = ways_out(model, asked, largest)
    settings = decision.settings
    return Fit(
        model=facts(model, name),
        context=settings.context,
        parallel=settings.parallel,
        batch=settings.ubatch,
        kv_cache=asked.cache,
        flash_attention=asked.flash_attention,
        engine=f"ollama {version or DEFAULT_VERSION}",
        verdict=decision.verdict,
        layers=layers(model, decision),
        devices=devices(decision, asked),
        max_context=largest,
        exactness=exactness(model, decision),
        speed=expected_speed(model, decision),
        margin_bytes=asked.margin_bytes,
        ways_out=tuple(WayOut(change.words, typed.changed(change.options)) for change in changes),
        notes=tuple(notes(model, asked, decision, version)),
    )


def quantizations(model: Model, asked: Asked) -> tuple[Quantized, ...]:
    """The usual quantizations of the model, each as llama-quantize would make it."""
    parameters = sum(tensor.elements for tensor in model.shape.tensors)
    found = []
    for name in MIXTURES:
        other = as_quantized(model, name)
        if other is not None:
            used, fit = fits_and_uses(other, asked)
            bits = round(other.file_bytes * 8 / parameters, 2)
            found.append(Quantized(name, bits, other.file_bytes, used, fit))
    return tuple(found)


def facts(model: Model, name: str) -> ModelFacts:
    shape = model.shape
    parameters = sum(tensor.elements for tensor in shape.tensors)
    return ModelFacts(
        name, shape.architecture, shape.quantization, parameters, model.file_bytes, shape.layers, shape.context_train
    )


def layers(model: Model, decision: Decision) -> Layers:
    total = model.shape.layers + 1
    if decision.offload is None:
        return Layers(None, total)
    moved = {over.layer for over in decision.placement.overflow if over.layer < model.shape.layers}
    return Layers(decision.offload.on_gpu, total, len(moved))


def devices(decision: Decision, asked: Asked) -> tuple[DeviceFit, ...]:
    """The GPUs in llama.cpp's order, then the host. A GPU that Ollama leaves out is not among them."""
    found = []
    for number, card in enumerate(decision.cards, 1):
        runtime = card.runtime_bytes
        found.append(_device(decision, number, card.name, card.total_bytes, card.free_bytes, runtime))
    host = asked.host
    return (*found, _device(decision, HOST, "host", host.total_bytes, host.free_bytes, 0))


def _device(decision: Decision, number: int, name: str, total: int | None, free: int | None, runtime: int) -> DeviceFit:
    needs = decision.needs
    # Without compute buffers nobody can say which layers go where, so only what one GPU would hold is told.
    told = decision.offload is not None or len(decision.cards) < 2

    def of(part: Mapping[int, int] | None) -> int | None:
        return part.get(number, 0) if told and part is not None else None

    used = needs.total(number)
    return DeviceFit(
        name=name,
        kind="host" if number == HOST else "gpu",
        total_bytes=total,
        free_bytes=free,
        weights_bytes=of(needs.weights),
        kv_bytes=of(needs.kv),
        state_bytes=of(needs.state),
        compute_bytes=of(needs.compute),
        runtime_bytes=runtime,
        used_bytes=None if used is None else used + runtime,
    )


def exactness(model: Model, decision: Decision) -> Exactness:
    kv = "unknown"
    if cache_known(model.shape):
        kv = "exact" if model.shape.architecture in PROVED_CACHES or not model.shape.has_cache else "bound"
    weights = "unknown" if decision.needs.weights is None else "exact"
    return Exactness(weights, kv, decision.needs.compute_exactness)


def expected_speed(model: Model, decision: Decision) -> roofline.Speed | None:
    """None for a placement that is not known, a card that is not known, and a model that makes no text."""
    needs, shape = decision.needs, model.shape
    if decision.offload is None or needs.weights is None or needs.kv is None or "pooling_type" in shape.keys:
        return None
    weights = model.weights(decision.settings.backend)
    idle = weights.idle_experts_bytes()
    read_share = 1 - idle / sum(needs.weights.values()) if idle else 1.0
    cards = range(1, len(decision.cards) + 1)
    host = int(needs.weights[HOST] * read_share) - weights.input_bytes()
    host_weights = needs.weights[HOST] - weights.input_bytes()
    parameters = sum(tensor.elements for tensor in shape.tensors)
    read = Read(
        gpu_bytes=tuple(int(needs.weights.get(card, 0) * read_share) for card in cards),
        host_bytes=max(host, 0),
        gpu_cache_bytes=tuple(needs.kv.get(card, 0) // decision.settings.parallel for card in cards),
        host_cache_bytes=needs.kv.get(HOST, 0) // decision.settings.parallel,
        parameters=int(parameters * read_share),
        batch=decision.settings.ubatch,
        prompt_tokens=min(PROMPT_TOKENS, decision.settings.context),
        host_weights_bytes=max(host_weights, 0),
    )
    return roofline.expect(read, [card.name for card in decision.cards])


def notes(model: Model, asked: Asked, decision: Decision, version: str | None) -> list[str]:
    """What a reader must know beside the figures."""
    shape, settings, found = model.shape, decision.settings, []
    if version is not None and version not in PROVED_VERSIONS:
        found.append(f"unverified for {version}: the rules were proved for Ollama {' and '.join(PROVED_VERSIONS)}")
    if decision.needs.refused:
        found.append(f"the engine would not start: {decision.needs.refused}")
    if settings.context < asked.context:
        found.append(f"the model was trained for {shape.context_train:,} tokens; Ollama loads it with those")
    if settings.parallel < asked.parallel:
        found.append(f"Ollama gives a {shape.architecture} model one slot")
    if decision.needs.compute_exactness == "unknown":
        found.append(f"the compute buffers of {shape.architecture} are not known: loading it shows where it lies")
    if len(decision.cards) < len(asked.cards):
        found.append(f"Ollama uses {decision.cards[0].name} alone")
    unknown = model.weights(settings.backend).unknown_types
    if unknown:
        found.append(f"tensors of {', '.join(unknown)}: their size is not known")
    if projector := model.projector_bytes(settings.backend):
        found.append(
            f"{projector >> 20} MiB for pictures are kept free beside the margin; what they are computed in takes more "
            "memory, and only the load shows how much"
        )
    free, needed = asked.host.free_bytes, decision.needs.known(HOST)
    if decision.cards and free is not None and needed > free:
        found.append(f"host memory: {needed >> 20} MiB are needed and {free >> 20} MiB are free")
    return found
