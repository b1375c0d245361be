"""Whether what is not resident would fit now: nothing is computed while every model is where it should be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.fit import FitFacts, ModelFit, Way
from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.memory import decide
from llmctl.core.memory.decide import Card, Host
from llmctl.core.memory.fit import DEFAULT_VERSION, Typed
from llmctl.core.memory.settings import PADDING
from llmctl.errors import LlmctlError
from llmctl.workflows import fit

if TYPE_CHECKING:
    from llmctl.core.checks.facts.gpu import Card as Seen
    from llmctl.core.checks.facts.models import ResidentFacts
    from llmctl.core.memory.decide import Decision, Everything
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.workflows.gather import Given


def gather(given: Given) -> FitFacts:
    profile, models, server = given.profile, given.of_models, given.of_server
    if not models.asked and server.answer != "absent":
        raise NotGathered("the server does not tell what it has loaded")
    missing = [model for model in models.resident if not settled(model)]
    specs = {spec.name: spec for spec in profile.resident}
    store = Path(server.store) if server.store else given.server.store(profile)
    if not missing:
        return FitFacts((), smaller(given, specs, store), residuals(given))
    machine = machine_of(given)
    found = []
    for model in missing:
        one, machine = judged(profile, specs[model.name], store, machine, given)
        found.append(one)
    return FitFacts(tuple(found), residuals=residuals(given))


def settled(model: ResidentFacts) -> bool:
    return model.loaded is not None and model.proof is not None and model.proof.verdict == "proved"


def residuals(given: Given) -> dict[str, tuple[tuple[int, int], ...]]:
    """What is known of the last loads of each model, by its name."""
    from llmctl.system import learnt

    try:
        version, driver = given.of_server.version or DEFAULT_VERSION, given.of_gpu.driver
    except NotGathered:
        return {}
    known = learnt.read(given.server.paths.state)
    return {
        model.name: known.residuals(version, driver, model.weights_digest)
        for model in given.of_models.resident
        if model.weights_digest is not None
    }


def smaller(given: Given, specs: Mapping[str, ModelSpec], store: Path) -> tuple[Way, ...]:
    """The ways out of models that lie where they should by now, after memory ran out: what needs less."""
    from llmctl.core.memory.solve import ways_out

    if not ran_out(given):
        return ()
    found: list[Way] = []
    try:
        machine = machine_of(given)
        for spec in specs.values() if machine.cards else ():
            source = fit.find_spec(spec, store, given.environ, here_only=True)
            asked = fit.ask(fit.Wish(backend="cuda"), given.profile, machine, spec)
            words = typed(source, given.profile)
            half = asked.context // 2 // PADDING * PADDING
            found += [
                Way(change.words, words.changed(change.options)) for change in ways_out(source.model(), asked, half)
            ]
    except (LlmctlError, NotGathered):
        # What can be said of the others stands; `fit` says why it cannot tell of this one.
        pass
    return tuple(found)


def ran_out(given: Given) -> bool:
    """By the server's log."""
    try:
        return given.area("log", LogFacts).out_of_memory is not None
    except (LlmctlError, NotGathered, KeyError):
        return False


def typed(source: fit.Source, profile: Profile) -> Typed:
    return Typed(f"llmctl fit {shlex.quote(source.name)}", {"--profile": shlex.quote(profile.reference)})


def machine_of(given: Given) -> fit.Machine:
    """The cards as NVML shows them, with what this server would evict counted as free, and the host."""
    from llmctl.system import learnt

    profile, server, gpu, host = given.profile, given.of_server, given.of_gpu, given.of_host
    chosen = profile.gpu.devices
    known = learnt.read(given.server.paths.state)
    own = {runner.pid for runner in server.runners if runner.parent == server.pid}
    if own and gpu.cards and not gpu.pids_known:
        raise NotGathered(
            "what this server's runners hold of the GPUs cannot be told here: NVML numbers processes as the host does"
        )
    version = server.version or DEFAULT_VERSION

    def card(seen: Seen) -> Card:
        evicted = sum(process.held_bytes or 0 for process in seen.processes if process.pid in own)
        free = seen.total_bytes if seen.free_bytes is None else min(seen.free_bytes + evicted, seen.total_bytes)
        runtime = fit.runtime_bytes("cuda", known.runtime_bytes(version, gpu.driver, seen.name))
        return Card(seen.name, seen.total_bytes, free, runtime)

    cards = [card(seen) for seen in gpu.cards if chosen == "all" or seen.index in chosen]
    return fit.Machine(fit.distinct(cards), Host(host.total_bytes, host.available_bytes), server.version)


def judged(
    profile: Profile, spec: ModelSpec, store: Path, machine: fit.Machine, given: Given
) -> tuple[ModelFit, fit.Machine]:
    """One model, and the machine with what it would leave. Ways out are searched for only where it does not fit."""
    try:
        source = fit.find_spec(spec, store, given.environ, here_only=True)
    except LlmctlError as error:
        return ModelFit(spec.name, "unknown", problem=error.message), machine
    wish = fit.Wish(backend="cuda" if machine.cards else "cpu")
    asked = fit.ask(wish, profile, machine, spec)
    model = source.model()
    whole, decision = decide.everything(model, asked), decide.decide(model, asked)
    ways: tuple[Way, ...] = ()
    if machine.cards and decision.verdict in {"partial", "no"}:
        result = fit.judge(source, asked, machine, typed(source, profile))
        ways = tuple(Way(way.words, way.command) for way in result.ways_out)
    cards, projector = whole.cards, model.projector_bytes(whole.settings.backend)
    free = sum(card.free_bytes for card in cards) if cards else machine.host.room_bytes
    totals = [card.total_bytes for card in cards if card.total_bytes is not None]
    found = ModelFit(
        spec.name,
        decision.verdict,
        bool(cards),
        decision.settings.context,
        needed(whole, asked.margin_bytes + projector),
        free,
        sum(totals) if cards else machine.host.total_bytes,
        decision.offload.on_gpu if decision.offload else None,
        model.shape.layers + 1,
        ways,
        decision.needs.refused or "",
    )
    return found, left(machine, decision, projector)


def needed(whole: Everything, kept_bytes: int) -> int | None:
    """All of it, with what must stay free on each card: the margin, and the room for a projector."""
    used = whole.used_bytes
    return None if used is None else used + sum(card.runtime_bytes + kept_bytes for card in whole.cards)


def left(machine: fit.Machine, decision: Decision, projector_bytes: int) -> fit.Machine:
    """The machine with the model on it, its projector on the first card."""
    taken = {card.name: decision.needs.total(number) or 0 for number, card in enumerate(decision.cards, 1)}
    if decision.cards:
        taken[decision.cards[0].name] += projector_bytes
    cards = tuple(
        replace(card, free_bytes=max(0, card.free_bytes - taken[card.name] - card.runtime_bytes))
        if card.name in taken
        else card
        for card in machine.cards
    )
    return replace(machine, cards=cards)
