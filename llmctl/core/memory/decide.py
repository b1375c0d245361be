"""One load, decided as Ollama and llama.cpp decide it: batch, GPUs, layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.memory import offload, ollama
from llmctl.core.memory.cache import cache_known, kv_bytes, state_bytes
from llmctl.core.memory.needs import Model, Needs
from llmctl.core.memory.settings import Placement, Settings

# Less than any card could lack: the engine does not start at all.
NEVER = -(1 << 62)


@dataclass(frozen=True)
class Card:
    """A GPU. `free_bytes` is before the engine's process and before the margin; `runtime_bytes` is what CUDA takes
    of it for a process that uses the card (0 where `free_bytes` comes from the engine, which has paid it)."""

    name: str
    total_bytes: int | None
    free_bytes: int
    runtime_bytes: int = 0


@dataclass(frozen=True)
class Host:
    """Host memory; None where it is not known."""

    total_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def room_bytes(self) -> int | None:
        return self.total_bytes if self.free_bytes is None else self.free_bytes


@dataclass(frozen=True)
class Asked:
    """What a person asks of a model. `context` is of one slot; `batch` None leaves it to Ollama."""

    context: int
    parallel: int = 1
    cache: str = "f16"
    batch: int | None = None
    flash_attention: str = "auto"
    backend: str = "cuda"
    cards: tuple[Card, ...] = ()
    margin_bytes: int = ollama.DEFAULT_MARGIN
    host: Host = Host()


@dataclass(frozen=True)
class Decision:
    """`cards` are those that are used, in llama.cpp's order: device 1 is the first. `offload` None: not known."""

    settings: Settings
    cards: tuple[Card, ...]
    offload: offload.Offload | None
    placement: Placement
    needs: Needs

    @property
    def verdict(self) -> str:
        if self.offload is None:
            return "unknown"
        if self.offload.full:
            return "full"
        return "partial" if self.offload.on_gpu else "no"


def effective(model: Model, asked: Asked) -> tuple[Settings, tuple[Card, ...]]:
    """The settings that the engine would load with, and the GPUs that Ollama would use."""
    shape = model.shape
    context, parallel = ollama.context(shape, asked.context), ollama.slots(shape, asked.parallel)
    cards = asked.cards
    alone = ollama.one_gpu(shape, model.file_bytes, context * parallel, [card.free_bytes for card in cards])
    if alone is not None and asked.backend == "cuda":
        cards = (cards[alone],)
    free = [card.free_bytes for card in cards]
    cuda = asked.backend == "cuda"
    batch = asked.batch or ollama.batch(
        shape, model.file_bytes, context, parallel, free, asked.flash_attention, cuda=cuda
    )
    settings = Settings(
        context=context,
        parallel=parallel,
        ubatch=batch,
        cache_k=asked.cache,
        cache_v=asked.cache,
        flash_attention=asked.flash_attention,
        backend=asked.backend if cards else "cpu",
        embedding=ollama.is_embedding(shape),
    )
    return settings, cards


@dataclass(frozen=True)
class Everything:
    """The load as it would be with every layer on the GPUs (in host memory where there is none)."""

    settings: Settings
    cards: tuple[Card, ...]
    placement: Placement
    needs: Needs
    rooms: tuple[int, ...] | None

    @property
    def used_bytes(self) -> int | None:
        """On all GPUs together, or in host memory."""
        totals = [self.needs.total(device) for device in self.devices]
        known = [total for total in totals if total is not None]
        return sum(known) if len(known) == len(totals) else None

    @property
    def spare_bytes(self) -> int | None:
        """What stays free above the margin on the tightest device; negative where it does not fit."""
        if self.needs.refused:
            return NEVER
        if self.rooms is None or self.used_bytes is None:
            return None
        return min(
            room - (self.needs.total(device) or 0) for device, room in zip(self.devices, self.rooms, strict=True)
        )

    @property
    def devices(self) -> range:
        return range(1, len(self.cards) + 1) if self.cards else range(1)


def everything(model: Model, asked: Asked) -> Everything:
    """One graph."""
    settings, cards = effective(model, asked)
    free = [card.free_bytes - card.runtime_bytes for card in cards]
    counted = offload.Model(model.shape.layers, model.shape.graph_layers, model.shape.experts)
    placement = offload.split(counted, counted.layers_all + 1, free)
    if cards:
        margin = asked.margin_bytes + model.projector_bytes(settings.backend)
        rooms: tuple[int, ...] | None = tuple(room - margin for room in free)
    else:
        rooms = None if asked.host.room_bytes is None else (asked.host.room_bytes,)
    return Everything(settings, cards, placement, model.needs(settings, placement), rooms)


def decide(model: Model, asked: Asked) -> Decision:
    """Where llama.cpp would put the layers. Emulates some graphs: one where all fits, a handful where not."""
    whole = everything(model, asked)
    settings, cards, placement, needs = whole.settings, whole.cards, whole.placement, whole.needs
    if whole.spare_bytes is None:
        return Decision(settings, cards, None, placement, needs)
    if not cards or needs.refused:
        found = offload.Offload(placement, (), 0, 0, full=whole.spare_bytes >= 0)
        return Decision(settings, cards, found, placement, needs)
    found = offload.fit(
        offload.Model(model.shape.layers, model.shape.graph_layers, model.shape.experts),
        [card.free_bytes - card.runtime_bytes for card in cards],
        [asked.margin_bytes + model.projector_bytes(settings.backend)] * len(cards),
        lambda trial: used_bytes(model, settings, trial, len(cards)),
    )
    return Decision(settings, cards, found, found.placement, model.needs(settings, found.placement))


def used_bytes(model: Model, settings: Settings, placement: Placement, cards: int) -> Sequence[int]:
    """What llama.cpp counts on each GPU; only for a model whose needs are all known."""
    needs = model.needs(settings, placement)
    return [needs.total(device) or 0 for device in range(1, cards + 1)]


def too_large(model: Model, asked: Asked) -> bool:
    """Whether weights and cache alone are more than there is: known without a graph."""
    settings, cards = effective(model, asked)
    layers = model.shape.layers
    if not cards or not cache_known(model.shape):
        return False
    placement = Placement((1,) * layers, 1)
    weights = model.weights(settings.backend)
    held = weights.on(placement)
    if held is None:
        return False
    cache = kv_bytes(model.shape, settings, placement)[1] + state_bytes(model.shape, settings, placement)[1]
    margins = (asked.margin_bytes + model.projector_bytes(settings.backend)) * len(cards)
    return held[1] + cache > sum(card.free_bytes - card.runtime_bytes for card in cards) - margins


def fits(model: Model, asked: Asked) -> bool:
    """Whether all of it would lie on the GPUs."""
    if too_large(model, asked):
        return False
    spare = everything(model, asked).spare_bytes
    if spare is None or spare >= 0 or len(asked.cards) < 2:
        return spare is not None and spare >= 0
    # With several GPUs llama.cpp may find another split that holds all.
    return decide(model, asked).verdict == "full"
