"""What systemd says of llmctl's units and of Ollama's own, beside what llmctl would write and what the guard says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving, unit
from llmctl.core.address import parse_host
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.service import GuardFacts, ServiceFacts, UnitFacts, Whose
from llmctl.core.serving import Lack
from llmctl.core.unit import Scope
from llmctl.core.unit_text import environment_of
from llmctl.errors import LlmctlError
from llmctl.system import guard_note, systemd
from llmctl.system.systemd import SYSTEM_UNITS, Manager
from llmctl.workflows.gather.shell import of_interest, user_name
from llmctl.workflows.install import OPT, lingering, system_address, system_site, user_site

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.workflows.gather import Given

OWN = (unit.ENGINE, unit.GUARD, unit.TARGET)
FIRST = "sysinit.target"
PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "FragmentPath", "DropInPaths", "MainPID"),
    *("NRestarts", "NeedDaemonReload", "Environment", "ActiveEnterTimestampMonotonic"),
)
WORDS_LINES, WORDS_KEPT, LOG_LINES = 40, 3, 2000
WATCHDOG = "Watchdog timeout"


@dataclass(frozen=True)
class Place:
    """Where the units of a service are, or were."""

    scope: Scope
    folder: Path
    adopted: bool
    leftover: str = ""

    @property
    def expected(self) -> tuple[str, ...]:
        return OWN[1:] if self.adopted else OWN


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
    return beside_profile(facts, given, place)


def find(given: Given) -> Place | None:
    """The service of these folders, even where a part of it is gone; else that of the whole machine in part."""
    user_folder = systemd.units_folder("user", given.environ)
    known = given.server.service
    if known is not None:
        return Place(known.scope, known.units, is_adopted(known.units))
    if found := remains("system", SYSTEM_UNITS):
        return Place("system", SYSTEM_UNITS, is_adopted(SYSTEM_UNITS), found)
    engine = systemd.own_text(user_folder / unit.ENGINE)
    mine = engine is None or environment_of(engine).get("LLMCTL_STATE_DIR") == str(given.server.paths.state)
    if mine and (found := remains("user", user_folder)):
        return Place("user", user_folder, False, found)
    return None


def is_adopted(folder: Path) -> bool:
    """Whether the guard was installed beside Ollama's own unit."""
    guard = systemd.own_text(folder / unit.GUARD)
    if guard is not None:
        return f"After={unit.FOREIGN}" in guard.splitlines()
    return systemd.own_text(folder / f"{unit.FOREIGN}.d" / unit.DROP_IN) is not None


def remains(scope: Scope, folder: Path) -> str:
    """What is left of a service whose guard is not there: another unit, or what `uninstall-service` takes away."""
    for name in OWN:
        if systemd.own_text(folder / name) is not None or is_masked(folder / name):
            return str(folder / name)
    wanted = "multi-user.target" if scope == "system" else "default.target"
    link = folder / f"{wanted}.wants" / unit.TARGET
    if link.is_symlink():
        return str(link)
    return str(OPT) if scope == "system" and OPT.is_dir() else ""


def is_masked(path: Path) -> bool:
    return path.is_symlink() and os.path.realpath(path) == os.devnull


def whose(path: Path) -> Whose:
    if is_masked(path):
        return "masked"
    if systemd.own_text(path) is not None:
        return "llmctl"
    return "other" if os.path.lexists(path) else "absent"


def of_unit(manager: Manager, place: Place, name: str, shown: Mapping[str, Mapping[str, str]]) -> UnitFacts:
    facts = replace(of_properties(name, shown.get(name, {})), whose=whose(place.folder / name))
    facts = replace(facts, file=facts.file or str(place.folder / name))
    if facts.active == "failed" or facts.restarts:
        facts = replace(facts, words=last_words(manager, name))
    if name == unit.GUARD and (facts.restarts or facts.result == "watchdog"):
        facts = replace(facts, watchdog=watchdog_events(manager, name))
    return facts


def of_properties(name: str, said: Mapping[str, str]) -> UnitFacts:
    environment = variables(said.get("Environment", ""))
    return UnitFacts(
        name,
        file=said.get("FragmentPath", ""),
        load=said.get("LoadState", ""),
        active=said.get("ActiveState", ""),
        sub=said.get("SubState", ""),
        result=said.get("Result", ""),
        enabled=said.get("UnitFileState", ""),
        restarts=int(said.get("NRestarts") or 0),
        pid=int(said.get("MainPID") or 0),
        stale=said.get("NeedDaemonReload") == "yes",
        drop_ins=tuple(path for path in said.get("DropInPaths", "").split() if systemd.own_text(Path(path)) is None),
        environment=without_passwords(of_interest(environment)),
        passwords=with_passwords(environment),
    )


def variables(text: str) -> dict[str, str]:
    """systemctl's list of `NAME=value`, quoted as a shell does."""
    with suppress(ValueError):
        return dict(entry.partition("=")[::2] for entry in shlex.split(text))
    return {}


def with_passwords(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The proxies that carry a password, by name."""
    from llmctl.core.proxy import has_password

    return tuple(sorted(name for name, value in environment.items() if has_password(name, value)))


def without_passwords(environment: Mapping[str, str]) -> dict[str, str]:
    hidden = with_passwords(environment)
    return {name: value for name, value in environment.items() if name not in hidden}


def last_words(manager: Manager, name: str) -> tuple[str, ...]:
    lines = [line.strip()[:300] for line in manager.journal(name, WORDS_LINES)]
    said = [line for line in lines if line.lower().startswith("error")] or [line for line in lines if line]
    return tuple(said[-WORDS_KEPT:])


def watchdog_events(manager: Manager, name: str) -> int | None:
    lines = manager.journal(name, LOG_LINES, "--since=-1d")
    return sum(WATCHDOG in line for line in lines) if lines else None


def foreign(manager: Manager, shown: Mapping[str, Mapping[str, str]]) -> UnitFacts | None:
    """Ollama's own unit; None where there is none."""
    said = shown.get(unit.FOREIGN, {})
    if said.get("LoadState") not in {"loaded", "masked", "bad-setting", "error"}:
        return None
    facts = replace(of_properties(unit.FOREIGN, said), whose="other")
    if facts.active == "failed":
        facts = replace(facts, words=last_words(manager, unit.FOREIGN))
    entered = int(said.get("ActiveEnterTimestampMonotonic") or 0)
    booted = int(shown.get(FIRST, {}).get("ActiveEnterTimestampMonotonic") or 0)
    if facts.active != "active" or not entered or not booted:
        return facts
    facts = replace(facts, since_boot_seconds=max(0.0, (entered - booted) / 1e6))
    return discovered(facts, manager.journal(unit.FOREIGN, LOG_LINES))


def discovered(facts: UnitFacts, lines: Sequence[str]) -> UnitFacts:
    """What a server found when it started last: the lines of ollama v0.34.0 discover/runner.go and types.go."""
    for line in lines:
        if "discovering available GPUs" in line:
            facts = replace(facts, discovery=None, discovery_words="")
        elif "llama-server GPU discovery" in line:
            facts = replace(facts, discovery="failed", discovery_words=line[:300])
        elif "inference compute" in line and facts.discovery != "failed":
            found = "cpu" if "library=cpu" in line else "gpu"
            facts = replace(facts, discovery="cpu" if found == "cpu" else "gpu", discovery_words=line[:300])
    return facts


def of_guard(given: Given) -> GuardFacts | None:
    note = guard_note.read(given.server.paths.runtime)
    if note is None or not note.alive:
        return None
    remedies = tuple(dict.fromkeys(model.remedy for model in note.models if model.degraded and model.remedy))
    return GuardFacts(note.reason, note.words, note.degraded, remedies)


def beside_profile(facts: ServiceFacts, given: Given, place: Place) -> ServiceFacts:
    """The units beside what this llmctl would write for the profile that they were made of."""
    try:
        profile = given.profile
    except NotGathered:
        return facts
    facts = replace(facts, shell=shell_differences(facts, given))
    own = {name: systemd.own_text(place.folder / name) for name in place.expected}
    made_of = environment_of(own.get(unit.ENGINE) or own.get(unit.GUARD) or "").get("LLMCTL_PROFILE")
    if made_of != profile.reference:
        return facts
    facts = replace(facts, current=True)
    if place.adopted:
        found = foreign_environment_or_none(given)
        return replace(facts, adoption=serving.lacks(profile, found, ()) if found is not None else ())
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


def foreign_environment_or_none(given: Given) -> dict[str, str] | None:
    """What Ollama's own unit gives its server, with llmctl's drop-in where that is there."""
    shown = Manager("system", given.environ).show_all((unit.FOREIGN,), ("Environment",))
    said = shown.get(unit.FOREIGN)
    return (variables(said.get("Environment", "")) or {"": ""}) if said else None


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


def shell_differences(facts: ServiceFacts, given: Given) -> tuple[tuple[str, str, str], ...]:
    """OLLAMA_HOST and OLLAMA_MODELS of who asks that name another server or store than the unit's."""
    server = facts.ollama if facts.adopted else facts.units.get(unit.ENGINE)
    if server is None:
        return ()
    found = []
    here, there = given.of_shell.environ, server.environment
    with suppress(LlmctlError):
        mine, theirs = (parse_host(each.get("OLLAMA_HOST", ""), "OLLAMA_HOST") for each in (here, there))
        if "OLLAMA_HOST" in here and (mine.port, mine.host) != (theirs.port, theirs.host):
            found.append(("OLLAMA_HOST", here["OLLAMA_HOST"], there.get("OLLAMA_HOST", theirs.url)))
    mine_models, models = here.get("OLLAMA_MODELS"), there.get("OLLAMA_MODELS")
    if mine_models and models and os.path.realpath(mine_models) != os.path.realpath(models):
        found.append(("OLLAMA_MODELS", mine_models, models))
    return tuple(found)
