"""The units of a service as systemd has them: where they are, whose they are, and how they run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import unit
from llmctl.core.checks.facts.service import UnitFacts, Whose
from llmctl.core.proxy import has_password
from llmctl.core.unit import Scope
from llmctl.core.unit_text import environment_of
from llmctl.system import systemd
from llmctl.system.systemd import SYSTEM_UNITS, Manager
from llmctl.workflows.gather.shell import of_interest
from llmctl.workflows.install import OPT

if TYPE_CHECKING:
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
    environment = systemd.variables(said.get("Environment", ""))
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


def with_passwords(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The proxies that carry a password, by name."""
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
