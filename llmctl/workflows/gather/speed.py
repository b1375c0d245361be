"""How fast the resident models answered here, beside what their bytes and this machine's memory allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.checks.facts.speed import ModelSpeed, SpeedFacts
from llmctl.errors import LlmctlError
from llmctl.system import learnt

if TYPE_CHECKING:
    from llmctl.core.checks.facts.models import ResidentFacts
    from llmctl.core.memory.speed import Read
    from llmctl.core.placement import Buffer
    from llmctl.core.profile import ModelSpec
    from llmctl.system.learnt import Learnt
    from llmctl.workflows.fit import Source
    from llmctl.workflows.gather import Given

PLACES = frozenset({"gpu", "partial", "cpu"})
CUDA = "CUDA"
WEIGHTS, CACHES = frozenset({"model"}), frozenset({"KV", "RS"})
# Ollama's own default.
BATCH = 512


def gather(given: Given) -> SpeedFacts:
    known = learnt.read(given.server.paths.state)
    specs = {spec.name: spec for spec in given.profile.resident}
    loaded = [one for one in given.of_models.resident if one.loaded is not None and one.proof is not None]
    return SpeedFacts(
        tuple(
            of_model(given, one, specs[one.name], known)
            for one in loaded
            if one.proof is not None and one.proof.place in PLACES and one.weights_digest is not None
        )
    )


def of_model(given: Given, one: ResidentFacts, spec: ModelSpec, known: Learnt) -> ModelSpeed:
    assert one.proof is not None
    assert one.weights_digest is not None
    place, digest = one.proof.place, one.weights_digest
    seen = known.tokens_per_second(digest, place)
    if seen is None:
        # Nothing to compare, so no header is read either.
        return ModelSpeed(one.name, place, one.context)
    return ModelSpeed(
        one.name,
        place,
        one.context,
        seen[1],
        known.lately(digest, place) or seen[0],
        known.best_tokens_per_second(digest, place),
        known.first_tokens(digest, place),
        **roofline(given, one, spec),
    )


def roofline(given: Given, one: ResidentFacts, spec: ModelSpec) -> dict[str, Any]:
    """The fields that the roofline gives; none where card, header or the runner's lines are not known, and none on a
    CPU: there the cores decide, and what else they do."""
    from llmctl.core.memory.speed import expect

    lines = (one.witnesses.buffers if one.witnesses else None) or ()
    cards = cards_of(given, lines)
    source = header(given, spec) if cards else None
    if source is None or cards is None:
        return {}
    read = read_of(source, lines, tuple(cards), one.context, given.profile.server.parallel)
    names = tuple(cards.values())
    expected = expect(read, names)
    bare = expect(replace(read, gpu_cache_bytes=tuple(0 for _ in names), host_cache_bytes=0), names)
    on_cards = expect(replace(read, host_bytes=0, host_cache_bytes=0), names)
    if expected is None:
        return {}
    return {
        "expected_least": expected.tokens_per_second_low,
        "expected_most": expected.tokens_per_second_high,
        "first_token_most": expected.first_token_seconds_high,
        "first_token_tokens": expected.prompt_tokens or 0,
        "basis": expected.basis,
        "host_share": on_cards and share(expected.tokens_per_second_high, on_cards.tokens_per_second_high),
        "cache_share": bare and share(expected.tokens_per_second_low, bare.tokens_per_second_low),
    }


def share(with_it: float | None, without: float | None) -> float | None:
    """The part of a token's time that goes where there is something more to read."""
    return 1 - with_it / without if with_it and without else None


def header(given: Given, spec: ModelSpec) -> Source | None:
    from llmctl.workflows import fit

    store = given.of_server.store
    try:
        return fit.find_spec(spec, Path(store) if store else None, given.environ, here_only=True)
    except LlmctlError:
        return None


def cards_of(given: Given, lines: Iterable[Buffer]) -> dict[str, str] | None:
    """The cards' names by the runner's names of its devices. None where there is none, where a device is no CUDA one,
    and where cards differ: CUDA numbers the fastest first, NVML does not."""
    devices = sorted({line.device for line in lines if not line.on_host})
    names = {card.name for card in given.of_gpu.cards}
    if not devices or len(names) != 1 or not all(device.startswith(CUDA) for device in devices):
        return None
    return dict.fromkeys(devices, names.pop())


def read_of(source: Source, lines: Iterable[Buffer], devices: tuple[str, ...], context: int, slots: int) -> Read:
    """What a token reads, by the runner's own lines."""
    from llmctl.core.memory.fit import PROMPT_TOKENS
    from llmctl.core.memory.speed import Read

    model = source.model()
    shape, weights = model.shape, model.weights("cuda")
    every = sum(tensor.size_bytes or 0 for tensor in shape.tensors)
    idle = weights.experts_bytes() * (shape.experts - shape.experts_used) // shape.experts if shape.experts else 0
    used = 1 - idle / every if idle and every else 1.0

    def held(device: str, kinds: frozenset[str]) -> int:
        return sum(line.size_bytes for line in lines if line.device == device and line.kind in kinds)

    # Of the embedding table, which lies in host memory, a token reads one row.
    host = max(
        0, sum(line.size_bytes for line in lines if line.on_host and line.kind in WEIGHTS) - weights.input_bytes()
    )
    return Read(
        gpu_bytes=tuple(int(held(device, WEIGHTS) * used) for device in devices),
        host_bytes=int(host * used),
        gpu_cache_bytes=tuple(held(device, CACHES) // slots for device in devices),
        host_cache_bytes=sum(line.size_bytes for line in lines if line.on_host and line.kind in CACHES) // slots,
        parameters=int(sum(tensor.elements for tensor in shape.tensors) * used),
        batch=BATCH,
        prompt_tokens=min(PROMPT_TOKENS, context),
    )
