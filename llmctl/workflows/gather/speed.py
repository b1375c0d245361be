"""How fast the resident models answered here, beside what their bytes and this machine's memory allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core import cards
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.speed import ModelSpeed, SpeedFacts
from llmctl.core.memory.settings import Settings
from llmctl.core.memory.token_time import attended, crossing_bytes, prompt_seconds, token_time
from llmctl.core.serving import argument
from llmctl.errors import LlmctlError
from llmctl.system import learnt

if TYPE_CHECKING:
    from llmctl.core.checks.facts.models import ResidentFacts
    from llmctl.core.memory.needs import Model
    from llmctl.core.memory.token_time import Read
    from llmctl.core.placement import Buffer
    from llmctl.core.profile import ModelSpec
    from llmctl.system.learnt import Learnt
    from llmctl.workflows.fit import Source
    from llmctl.workflows.gather import Given

PLACES = frozenset({"gpu", "partial", "cpu"})
WEIGHTS, CACHES, STATES = frozenset({"model"}), frozenset({"KV"}), frozenset({"RS"})
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
    seen, first = known.tokens_per_second(digest, place), known.first_tokens(digest, place)
    if seen is None and not first and not given.deep:
        # Nothing to compare, so no header is read either.
        return ModelSpeed(one.name, place, one.context)
    answers, used = (0, None) if seen is None else (seen[1], known.context_tokens(digest, place))
    return ModelSpeed(
        one.name,
        place,
        one.context,
        answers,
        seen and (known.lately(digest, place) or seen[0]),
        known.best_tokens_per_second(digest, place),
        None if used is None else min(used, one.context),
        first,
        runner_pid=one.runner_pid,
        **roofline(given, one, spec, used),
    )


def roofline(given: Given, one: ResidentFacts, spec: ModelSpec, used: int | None) -> dict[str, Any]:
    """The fields that the roofline gives: no times where a card is not known, and none on a CPU, where the cores decide
    and what else they do; nothing where neither the header nor the runner's lines can be read."""
    from llmctl.core.memory.speed import expect

    lines = (one.witnesses.buffers if one.witnesses else None) or ()
    source = header(given, spec) if lines else None
    if source is None:
        return {"unknown": "neither the runner's lines nor the model's header say what a token reads"}
    model = source.model()
    devices = tuple(sorted({line.device for line in lines if not line.on_host}))
    named, unknown = cards_of(given, one, devices)
    read = read_of(model, lines, devices, one, given.profile.server.parallel)
    fields = {**of_bytes(model, read, one, used), "unknown": unknown}
    names = tuple(named.values())
    expected = expect(read, names) if names else None
    if expected is None:
        # A card that is known by name alone has no bandwidth here.
        return {**fields, "unknown": unknown or f"how fast {' and '.join(names) or 'a processor'} reads is not known"}
    now = replace(read, **at_context(model, read, one, used))
    return {
        **fields,
        "expected_least": expected.tokens_per_second_low,
        "expected_most": expected.tokens_per_second_high,
        "basis": expected.basis,
        "time": token_time(now, names),
        "prompt_seconds": prompt_seconds(read.parameters, names),
        "cards": tuple(sorted(set(names))),
    }


def of_bytes(model: Model, read: Read, one: ResidentFacts, used: int | None) -> dict[str, Any]:
    """What is known without any card."""
    cached = at_context(model, read, one, used)
    cache = sum(cached["gpu_cache_bytes"]) + cached["host_cache_bytes"]
    every = sum(read.gpu_bytes) + read.host_bytes + cache
    return {
        "cache_share": cache / every if every else None,
        "crossing_bytes": crossing_bytes(model.shape, one.context) if read.gpu_bytes else 0,
        "host_weights_bytes": read.host_weights_bytes if read.gpu_bytes else 0,
        "host_read_bytes": read.host_bytes if read.gpu_bytes else 0,
        "batch": read.batch,
    }


def at_context(model: Model, read: Read, one: ResidentFacts, used: int | None) -> dict[str, Any]:
    """The cache's bytes of `read` with so many tokens in it."""
    part = 1.0 if used is None else attended(model.shape, Settings(one.context, ubatch=read.batch), used)
    return {
        "gpu_cache_bytes": tuple(int(size * part) for size in read.gpu_cache_bytes),
        "host_cache_bytes": int(read.host_cache_bytes * part),
    }


def header(given: Given, spec: ModelSpec) -> Source | None:
    from llmctl.workflows import fit

    store = given.of_server.store
    try:
        return fit.find_spec(spec, Path(store) if store else None, given.environ, here_only=True)
    except LlmctlError:
        return None


def cards_of(given: Given, one: ResidentFacts, devices: Iterable[str]) -> tuple[dict[str, str], str]:
    """The cards' names by the runner's names of its devices, and why there are none."""
    try:
        log = given.of_log
    except (NotGathered, LlmctlError):
        log = None
    load = log.last_load(one.weights_digest) if log else None
    discovered = dict(pair for name in (log.gpus if log else None) or () if len(pair := name.split(" ", 1)) == 2)
    driver = {card.name for card in given.of_gpu.cards}
    return cards.of_devices(devices, dict(load.devices) if load else {}, discovered, driver)


def read_of(model: Model, lines: Iterable[Buffer], devices: tuple[str, ...], one: ResidentFacts, asked: int) -> Read:
    """What a token reads when the cache is full, by the runner's own lines. `asked`: slots of the profile."""
    from llmctl.core.memory.fit import PROMPT_TOKENS
    from llmctl.core.memory.token_time import Read

    shape, weights = model.shape, model.weights("cuda")
    every = sum(tensor.size_bytes or 0 for tensor in shape.tensors)
    idle = weights.idle_experts_bytes()
    used = 1 - idle / every if idle and every else 1.0
    slots, host_weights = number(one, "-np", asked), on_host(model, lines)

    def held(device: str, kinds: frozenset[str]) -> int:
        return sum(line.size_bytes for line in lines if line.device == device and line.kind in kinds)

    hosts = {line.device for line in lines if line.on_host}
    return Read(
        gpu_bytes=tuple(int(held(device, WEIGHTS) * used) + held(device, STATES) // slots for device in devices),
        host_bytes=int(host_weights * used) + sum(held(device, STATES) for device in hosts) // slots,
        gpu_cache_bytes=tuple(held(device, CACHES) // slots for device in devices),
        host_cache_bytes=sum(held(device, CACHES) for device in hosts) // slots,
        parameters=int(sum(tensor.elements for tensor in shape.tensors) * used),
        batch=number(one, "-ub", BATCH),
        prompt_tokens=min(PROMPT_TOKENS, one.context),
        host_weights_bytes=host_weights,
    )


def number(one: ResidentFacts, option: str, usual: int) -> int:
    """Of its runner's command line."""
    said = argument(one.runner_argv, option) or ""
    return int(said) if said.isdigit() and int(said) else usual


def on_host(model: Model, lines: Iterable[Buffer]) -> int:
    """Weights in host memory that tokens read: of the embedding table, which lies there too, it is one row."""
    held = sum(line.size_bytes for line in lines if line.on_host and line.kind in WEIGHTS)
    return max(0, held - model.weights("cuda").input_bytes())
