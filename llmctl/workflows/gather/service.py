"""What systemd says of llmctl's units and of Ollama's own, beside what llmctl would write and what the guard says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.core import serving, unit
from llmctl.core.address import parse_host
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.service import GuardFacts, ServiceFacts
from llmctl.core.serving import Lack
from llmctl.core.surroundings import Difference, Variables, of_variables
from llmctl.core.unit import Scope
from llmctl.core.unit_text import environment_of
from llmctl.errors import LlmctlError
from llmctl.system import guard_note, systemd
from llmctl.system.systemd import Manager
from llmctl.workflows.gather.shell import user_name
from llmctl.workflows.gather.units import FIRST, PROPERTIES, Place, find, foreign, of_unit
from llmctl.workflows.install import lingering, system_address, system_site, user_site

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.workflows.gather import Given


def gather(given: Given) -> ServiceFacts:
    guard = of_guard(given)
    if not systemd.is_there():
        return ServiceFacts(False, guard=guard)
    place = find(given)
    machine = Manager("system", given.environ)
    if place is None:
        shown = machine.show_all((unit.FOREIGN, FIRST), PROPERTIES)
        return ServiceFacts(True, ollama=foreign(machine, shown), guard=guard, user=user_name(os.geteuid()))
    manager = Manager(place.scope, given.environ)
    names = (*place.expected, FIRST if place.scope == "system" else "basic.target", unit.FOREIGN)
    shown = manager.show_all(names, PROPERTIES)
    units = {name: of_unit(manager, place, name, shown) for name in place.expected}
    if place.scope == "user":
        shown = machine.show_all((unit.FOREIGN, FIRST), PROPERTIES)
    sudo = "sudo " if place.scope == "system" and os.geteuid() != 0 else ""
    words = [f"{sudo}llmctl install-service", *(["--user"] if place.scope == "user" else [])]
    facts = ServiceFacts(
        True,
        place.scope,
        place.adopted,
        place.leftover,
        units,
        foreign(machine, shown),
        linger=not lingering() if place.scope == "user" else None,
        user=user_name(os.geteuid()),
        guard=guard,
        llmctl=f"{sudo}llmctl",
        systemctl="sudo systemctl" if place.scope == "system" else "systemctl --user",
        reinstall=" ".join([*words, *(["--adopt"] if place.adopted else [])]),
    )
    return beside_profile(facts, given, place, shown.get(unit.FOREIGN))


def of_guard(given: Given) -> GuardFacts | None:
    note = guard_note.read(given.server.paths.runtime)
    if note is None or not note.alive:
        return None
    remedies = tuple(dict.fromkeys(model.remedy for model in note.models if model.degraded and model.remedy))
    return GuardFacts(note.reason, note.words, note.degraded, remedies)


def beside_profile(
    facts: ServiceFacts, given: Given, place: Place, foreign_said: Mapping[str, str] | None
) -> ServiceFacts:
    """The units beside what this llmctl would write for the profile that they were made of. `foreign_said` is what
    systemd says of Ollama's own unit; its environment has what llmctl's drop-in adds."""
    try:
        profile = given.profile
    except NotGathered:
        return facts
    facts = replace(facts, shell=shell_differences(facts, given))
    own = {name: systemd.own_text(place.folder / name) for name in place.expected}
    made_of = environment_of(own.get(unit.ENGINE) or own.get(unit.GUARD) or "").get("LLMCTL_PROFILE")
    if made_of and place.scope == "user":
        # Without it install-service takes the profile of the last `up`.
        facts = replace(facts, reinstall=f"{facts.reinstall} --profile {shlex.quote(made_of)}")
    if made_of != profile.reference:
        return facts
    if place.adopted:
        if foreign_said is None:
            return facts
        found = systemd.variables(foreign_said.get("Environment", "")) or {"": ""}
        return replace(facts, adoption=serving.lacks(profile, found, ()))
    wanted = unit.units(site(given, profile, place), profile)
    units = {
        name: replace(known, edited=differences(own[name] or "", wanted[name], place.scope)) if own[name] else known
        for name, known in facts.units.items()
    }
    engine = own.get(unit.ENGINE)
    if engine is None:
        return replace(facts, units=units)
    there, asked = environment_of(engine), environment_of(wanted[unit.ENGINE])
    effective = facts.units[unit.ENGINE].environment
    return replace(
        facts,
        units=units,
        drift=different(there, asked),
        overridden=different(effective, {name: there[name] for name in deciding(there)}) if effective else (),
        same_port=wants_same_port(facts, there),
    )


def site(given: Given, profile: Profile, place: Place) -> unit.Site:
    if place.scope == "system":
        uvm = systemd.own_text(place.folder / unit.UVM) is not None
        return system_site(system_address(profile), engine=not place.adopted, uvm=uvm)
    # How llmctl is called is the unit's own matter: another copy of it may be asking.
    return user_site(given.server, profile, ("llmctl",))


def deciding(environment: Mapping[str, str]) -> list[str]:
    """The variables that decide what the profile decides."""
    prefixes = ("OLLAMA_", "LLAMA_ARG_", "CUDA_VISIBLE_DEVICES")
    return [name for name in environment if name.startswith(prefixes)]


def different(found: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[Lack, ...]:
    names = sorted({*deciding(found), *deciding(wanted)})
    return tuple(
        Lack(name, wanted.get(name, ""), found.get(name)) for name in names if found.get(name) != wanted.get(name)
    )


def differences(found: str, wanted: str, scope: Scope) -> tuple[str, ...]:
    """Lines of a unit that are not llmctl's, and those of llmctl's that are missing; not its variables, which are the
    profile's, nor its comments. A user's unit may call another copy of llmctl."""

    def lines(text: str) -> list[str]:
        skipped = ("#", "Environment=", *(("Exec",) if scope == "user" else ()))
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(skipped)]

    have, want = lines(found), lines(wanted)
    extra = [f"+{line}" for line in have if line not in want]
    return (*extra, *(f"-{line}" for line in want if line not in have))


def wants_same_port(facts: ServiceFacts, engine: Mapping[str, str]) -> bool:
    ollama = facts.ollama
    if ollama is None or (ollama.enabled != "enabled" and ollama.active in {"inactive", "failed"}):
        return False
    try:
        theirs = parse_host(ollama.environment.get("OLLAMA_HOST", ""), "OLLAMA_HOST")
        return theirs.port == parse_host(engine.get("OLLAMA_HOST", ""), "OLLAMA_HOST").port
    except LlmctlError:
        return False


def shell_differences(facts: ServiceFacts, given: Given) -> tuple[Difference, ...]:
    """Settings of Ollama in the environment of who asks that the server of the unit does not have."""
    server = facts.ollama if facts.adopted else facts.units.get(unit.ENGINE)
    if server is None or not server.environment:
        return ()
    return tuple(of_variables(Variables(server.environment, complete=True), given.of_shell.environ))
