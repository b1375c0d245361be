"""fit: whether a model fits, from its header alone: a file, a model in the store, or one still in its registry."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.gpu import SIZES
from llmctl.core.memory import fit as verdicts
from llmctl.core.memory import shape, solve
from llmctl.core.memory.bandwidth import usual_card
from llmctl.core.memory.decide import Asked, Card, Host
from llmctl.core.memory.fit import Fit, Typed, WayOut
from llmctl.core.memory.needs import Model
from llmctl.core.memory.ollama import DEFAULT_MARGIN, flash_attention
from llmctl.core.memory.speed import Speed
from llmctl.core.model import ModelRef, looks_like_path
from llmctl.errors import LlmctlError, NotFound, UsageError

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.core.memory.gguf import Gguf
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.system.learnt import Learnt
    from llmctl.system.store import Store

GIB = 1 << 30
PROJECTOR_MEDIA_TYPE = "application/vnd.ollama.image.projector"
# Ollama's own default of the context, by the memory of all GPUs together (v0.34.0 server/routes.go:2063-2072).
TIERS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))


@dataclass(frozen=True)
class Wish:
    """What was asked on the command line; None leaves it to the profile, and then to Ollama."""

    context: int | None = None
    parallel: int | None = None
    kv_cache: str | None = None
    batch: int | None = None
    flash_attention: str | None = None
    backend: str = "cuda"
    margin_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """What there is to lie on, and which engine's rules hold. `engine_version` None: not known.

    `learnt` is what this very machine has shown; None where the GPUs are only supposed.
    """

    cards: tuple[Card, ...]
    host: Host
    engine_version: str | None = None
    learnt: Learnt | None = None
    note: str | None = None


@dataclass(frozen=True)
class Together:
    """All resident models of a profile, each beside those before it."""

    verdict: str
    models: tuple[Fit, ...]


@dataclass(frozen=True)
class Source:
    """A model's header and what stands beside it. `digest` is of the weights, None for a file."""

    name: str
    header: Gguf
    projector_bytes: int = 0
    digest: str | None = None

    def model(self) -> Model:
        return Model(shape.from_gguf(self.header), self.header.size_bytes, self.projector_bytes)


def find(asked: str, store: Path | None, environ: Mapping[str, str] = os.environ) -> Source:
    """The header of what a person named. Nothing is downloaded but, for a registry's model, its header."""
    from llmctl.system import gguf_file

    if looks_like_path(asked):
        path = Path(asked).expanduser().absolute()
        if not path.exists():
            raise NotFound(f"no file {path}", f"ls -l {shlex.quote(str(path.parent))}")
        return Source(asked, gguf_file.header(path))
    ref = ModelRef.parse(asked)
    if store is not None and (found := _stored(ref, store)) is not None:
        return found
    from llmctl.system import registry, remote_gguf

    manifest = registry.manifest(ref, environ)
    layer = manifest.weights
    if layer is None:
        raise _no_weights(str(ref))
    header = remote_gguf.header(ref, layer, environ)
    return Source(str(ref), header, _projector_bytes(manifest, None), layer.digest)


def find_spec(
    spec: ModelSpec, store: Path | None, environ: Mapping[str, str] = os.environ, *, here_only: bool = False
) -> Source:
    """The header of a profile's model. The starter, and with `here_only` every model, is looked for here alone."""
    if spec.source not in {"registry", "starter"}:
        return find(spec.source, store, environ)
    if spec.source == "starter" or here_only:
        found = _stored(ModelRef.parse(spec.name), store) if store else None
        if found is None:
            raise NotFound(f"{spec.name} is not in the store that can be read here", f"llmctl pull {spec.name}")
        return found
    return find(spec.name, store, environ)


def _stored(ref: ModelRef, store: Path) -> Source | None:
    """The model in Ollama's store; None where it is not there or cannot be read."""
    from llmctl.library.weights import manifest_of
    from llmctl.system import gguf_file
    from llmctl.system.store import Store

    manifest = manifest_of(str(ref), store)
    if manifest is None:
        return None
    if manifest.weights is None:
        raise _no_weights(str(ref))
    blobs = Store(store)
    blob = blobs.blob(manifest.weights.digest)
    if not os.access(blob, os.R_OK):
        return None
    return Source(str(ref), gguf_file.header(blob), _projector_bytes(manifest, blobs), manifest.weights.digest)


def _projector_bytes(manifest: Manifest, store: Store | None) -> int:
    """The tensors of the first one, which is all that Ollama loads (v0.34.0 llm/llama_server.go:654); where they
    cannot be read the file, which is some KiB more."""
    from llmctl.system import gguf_file

    layer = next((layer for layer in manifest.layers if layer.media_type == PROJECTOR_MEDIA_TYPE), None)
    if layer is None or store is None:
        return layer.size_bytes if layer else 0
    try:
        sizes = [tensor.size_bytes for tensor in gguf_file.header(store.blob(layer.digest)).tensors]
    except LlmctlError:
        return layer.size_bytes
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else layer.size_bytes


def _no_weights(name: str) -> NotFound:
    return NotFound(f"{name} has no GGUF weights, so llama.cpp does not run it", "llmctl fit --help", code="no_weights")


def ask(wish: Wish, profile: Profile | None, machine: Machine, spec: ModelSpec | None = None) -> Asked:
    """The wish, completed by the profile and then by what Ollama would choose."""
    server = profile.server if profile else None
    context = wish.context or (spec.context if spec else None) or (server.context if server else None)
    margin = wish.margin_bytes
    if margin is None:
        margin = profile.gpu.reserve_bytes if profile else DEFAULT_MARGIN
    return Asked(
        context=context or default_context(machine.cards),
        parallel=wish.parallel or (server.parallel if server else 1),
        cache=wish.kv_cache or (server.kv_cache if server else "f16"),
        batch=wish.batch,
        flash_attention=wish.flash_attention
        or flash_attention(server.flash_attention if server else "auto", wish.backend),
        backend=wish.backend,
        cards=() if wish.backend == "cpu" else machine.cards,
        margin_bytes=margin,
        host=machine.host,
    )


def default_context(cards: Sequence[Card]) -> int:
    """What Ollama loads a model with when nobody names a context."""
    total = sum(card.total_bytes or card.free_bytes for card in cards)
    return next(context for least, context in TIERS if total >= least)


def judge(
    source: Source,
    asked: Asked,
    machine: Machine,
    typed: Typed,
    *,
    quantization: str | None = None,
    table: bool = False,
    quantizations: bool = False,
) -> Fit:
    """The verdict on one model, with its tables where they are asked for."""
    model = source.model()
    notes: tuple[str, ...] = (machine.note,) if machine.note else ()
    if quantization is not None:
        other = solve.as_quantized(model, quantization)
        if other is None:
            raise UsageError(f"{source.name} has tensors of an unknown type, so it cannot be computed in another")
        model = other
        notes = (*notes, f"{quantization} as llama-quantize would make it; a published file may differ")
    result = verdicts.judge(model, asked, source.name, machine.engine_version, typed)
    speed = seen_speed(source, result, machine) or result.speed
    ways = result.ways_out
    if (
        result.verdict in {"partial", "no"}
        and len(ways) < solve.WAYS
        and (way := smaller_model(asked, source.name, typed))
    ):
        ways = (*ways, way)
    result = replace(result, notes=(*notes, *result.notes), speed=speed, ways_out=ways)
    if quantizations:
        result = replace(result, quantizations=verdicts.quantizations(model, asked))
    if table:
        result = replace(result, table=solve.context_table(model, asked), slots=solve.slot_table(model, asked))
    return result


def smaller_model(asked: Asked, name: str, typed: Typed) -> WayOut | None:
    """The model of the shipped profile for what is free on the largest card; None where no profile is that small.

    Each profile's figures were computed with so much free, and a test computes them anew.
    """
    from llmctl.system.shipped import load_shipped

    free_bytes = max((card.free_bytes for card in asked.cards), default=0)
    chosen = next((name for floor, name in SIZES if free_bytes >= floor * GIB), None)
    if chosen is None:
        return None
    other = load_shipped(chosen).models[0].name
    if other == name:
        return None
    same = {name: value for name, value in typed.options.items() if name in {"--gpu", "--backend"}}
    command = Typed(f"llmctl fit {other}", same).changed(("--profile", chosen))
    return WayOut(f"a smaller model, {other}, with the profile {chosen}", command)


def seen_speed(source: Source, result: Fit, machine: Machine) -> Speed | None:
    """What answers of this model have shown here, where it lay as it would; None where there were none."""
    if machine.learnt is None or source.digest is None:
        return None
    gpus = any(device.kind == "gpu" for device in result.devices)
    place = {"full": "gpu" if gpus else "cpu", "partial": "partial", "no": "cpu"}.get(result.verdict, "")
    seen = machine.learnt.tokens_per_second(source.digest, place)
    if seen is None:
        return None
    middle, answers = seen
    return Speed(middle, middle, None, None, None, f"measured here, the middle of {answers} answers")


def together(
    sources: Sequence[tuple[Source, ModelSpec]], wish: Wish, profile: Profile, machine: Machine, typed: Typed
) -> Together:
    """Each resident model on what those before it leave free."""
    cards, found = machine.cards, []
    for source, spec in sources:
        now = replace(machine, cards=cards)
        result = judge(source, ask(wish, profile, now, spec), now, _alone(typed, source, cards))
        found.append(result)
        cards = tuple(_less(card, result) for card in cards)
    order = ("no", "unknown", "partial", "full")
    worst = min((result.verdict for result in found), key=order.index, default="full")
    return Together(worst, tuple(found))


def _alone(typed: Typed, source: Source, cards: Sequence[Card]) -> Typed:
    """The command that asks about one of several models, on what the others leave."""
    left = ",".join(f"{card.free_bytes >> 20}MiB" for card in cards) or "none"
    return Typed(f"{typed.words} {shlex.quote(source.name)}", {**typed.options, "--gpu": left})


def _less(card: Card, result: Fit) -> Card:
    used = sum(device.used_bytes or 0 for device in result.devices if device.kind == "gpu" and device.name == card.name)
    return replace(card, free_bytes=max(card.free_bytes - used, 0))


def parse_cards(text: str, backend: str, learnt_runtime: int | None = None) -> tuple[Card, ...]:
    """`24GiB[,24GiB]`, or `none`: GPUs by what is free on each."""
    from llmctl.core.size import parse_size

    if text.strip().lower() == "none":
        return ()
    cards = []
    for number, part in enumerate(text.split(",")):
        size = parse_size(part.strip())
        if size is None:
            raise UsageError(f"--gpu {text!r}: {part!r} is no amount such as 24GiB or 23860MiB", "llmctl fit --help")
        name = f"GPU {number} (as an {usual_card(size)})" if backend == "cuda" else f"GPU {number}"
        cards.append(Card(name, None, size, runtime_bytes(backend, learnt_runtime)))
    return tuple(cards)


def runtime_bytes(backend: str, learnt: int | None) -> int:
    """What a process takes of a GPU beside llama.cpp's buffers: as learnt here, else the most that was published."""
    if backend != "cuda":
        return 0
    return verdicts.CUDA_RUNTIME_BYTES if learnt is None else learnt


def this_machine(backend: str, state: Path, engine_version: str | None, *, look: bool = True) -> Machine:
    """Host memory and, unless told not to `look`, the GPUs that NVML shows, with what is free now."""
    from llmctl.system import host

    memory = Host(*host.memory_bytes())
    if not look:
        return Machine((), memory, engine_version)
    from llmctl.system import learnt, nvml

    known = learnt.read(state)
    inventory = nvml.gpus()
    engine = engine_version or verdicts.DEFAULT_VERSION
    cards = []
    for gpu in inventory.gpus:
        runtime = runtime_bytes(backend, known.runtime_bytes(engine, inventory.driver_version, gpu.name))
        free = gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes
        cards.append(Card(gpu.name, gpu.total_bytes, free, runtime))
    note = f"no GPU is seen here ({inventory.unavailable}); --gpu 24GiB supposes one" if not cards else None
    return Machine(distinct(cards), memory, engine_version, known, note)


def distinct(cards: Sequence[Card]) -> tuple[Card, ...]:
    """The cards with names that tell them apart."""
    names = [card.name for card in cards]
    return tuple(
        replace(card, name=f"{card.name} #{number}") if names.count(card.name) > 1 else card
        for number, card in enumerate(cards)
    )
