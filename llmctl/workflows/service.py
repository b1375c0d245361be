"""up, down and status where systemd owns the server: through its units, and not by signals."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmctl.core import serving, unit
from llmctl.core.progress import Progress, Step
from llmctl.core.surroundings import Difference, Surroundings, Variables, differences
from llmctl.errors import EngineError, LlmctlError, Refused, ServerNotRunning
from llmctl.system import guard_note, pauses, process
from llmctl.system.systemd import Installed, Manager, UnitState
from llmctl.workflows.surroundings import of_shell, of_unit

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.profile import Profile
    from llmctl.server import Server
    from llmctl.workflows.down import DownResult
    from llmctl.workflows.up import Up, UpResult

POLL_SECONDS = 0.2
# After `up` has proved the models itself, the guard needs a look and one token.
GUARD_SECONDS = 60.0


@dataclass(frozen=True)
class ServiceStatus:
    """The units, what the guard last said, what is not as the profile says now, and this shell beside the unit.

    `engine` and `guard` are systemd's words (active, activating, failed, …), `words` the guard's STATUS line;
    `differences` are those of unit and shell, and of Ollama's variables in them.
    """

    scope: unit.Scope
    engine: str | None
    guard: str | None
    restarts: int | None
    words: str | None
    reason: str | None
    degraded: bool | None
    drift: tuple[serving.Lack, ...]
    unit: Surroundings
    shell: Surroundings
    differences: tuple[Difference, ...]


def require_rights(service: Installed | None, verb: str, typed: str | None = None, *, beside: bool = False) -> None:
    """The service of the whole machine is root's to change: its units, models, pins and engines. `typed` is the command
    line after `llmctl`, where it is another than the verb alone; `beside`: who is not root may do it for themselves."""
    if service is not None and service.scope == "system" and os.geteuid() != 0:
        command = f"llmctl {typed or verb}"
        own = f"; as your own: LLMCTL_SCOPE=user {command}" if beside else ""
        raise Refused(
            f"the service of this machine is root's: {verb} needs root", f"sudo {command}{own}", code="not_root"
        )


def require_same(service: Installed, profile: Profile, given: bool) -> None:
    """Another profile than the installed one is installed, not brought up beside it."""
    if not given or service.profile == profile.reference:
        return
    sudo, user = ("sudo ", "") if service.scope == "system" else ("", " --user")
    beside = f"; beside it, as your own: LLMCTL_SCOPE=user llmctl up {profile.reference}" if sudo else ""
    raise Refused(
        f"the service runs the profile {service.profile}, not {profile.reference}",
        f"{sudo}llmctl install-service{user} --profile {profile.reference}{beside}",
        code="other_profile",
    )


def up(work: Up, service: Installed, client: Callable[[str], Client]) -> UpResult:
    """Start the units, get and prove the models, then wait for the guard, which keeps them from then on."""
    server, progress = work.services.server, work.progress
    require_rights(service, "up")
    manager = Manager(service.scope, server.environ)
    if service.engine:
        start_engine(manager, client(server.address(work.profile).url), progress)
    result = work.run()
    started = manager.show(unit.GUARD).active != "active"
    note = await_guard(manager, progress) if result.verdict == "proved" else None
    notes = (*result.notes, note) if note else result.notes
    return replace(result, changed=result.changed or started, notes=notes)


def start_engine(manager: Manager, client: Client, progress: Progress) -> None:
    """Returns when the server answers. A GPU that is not there yet is waited for, with the unit's own words."""
    begin(manager, unit.ENGINE)
    said = ""
    while not answers(client):
        state = manager.show(unit.ENGINE)
        if state.active == "failed":
            raise EngineError(f"{unit.ENGINE} failed: {last_words(manager, state)[:300]}", manager.shown_status())
        words = (manager.journal(unit.ENGINE, 1) or [""])[-1] if state.waits else state.active
        if words != said:
            said = words
            progress(Step("unit", "unit", detail=f"{unit.ENGINE}: {words[:200]}"))
        time.sleep(POLL_SECONDS)
    progress(Step("unit", "unit", "done", f"{unit.ENGINE} answers"))


def last_words(manager: Manager, state: UnitState) -> str:
    """Why a unit failed: its own last error, else what systemd calls the result."""
    errors = [line for line in manager.journal(unit.ENGINE, 50) if line.lower().startswith("error:")]
    return errors[-1].removeprefix("error:").strip() if errors else state.result


def begin(manager: Manager, name: str) -> None:
    """Start a unit with its target, without waiting; one that has failed begins anew."""
    if manager.show(name).active == "failed":
        manager.change("reset-failed", name)
    manager.change("--no-block", "start", unit.TARGET, name)


def answers(client: Client) -> bool:
    try:
        return bool(client.version())
    except ServerNotRunning:
        return False


def await_guard(manager: Manager, progress: Progress) -> str | None:
    """Wait until the guard says that it is ready; a note where it does not."""
    begin(manager, unit.GUARD)
    deadline = time.monotonic() + GUARD_SECONDS
    said = ""
    while (state := manager.show(unit.GUARD)).active != "active":
        if state.active == "failed" or time.monotonic() > deadline:
            return f"{unit.GUARD} is not ready: {state.status or state.result}; see: {manager.shown_status()}"
        words = state.status or state.sub
        if words != said:
            said = words
            progress(Step("guard", "guard", detail=words[:200]))
        time.sleep(POLL_SECONDS)
    progress(Step("guard", "guard", "done", state.status[:200]))
    return None


def down(server: Server, service: Installed, progress: Progress) -> DownResult:
    """Stop the units until the next boot or `up`; a guard in a foreground keeps its hands off too."""
    from llmctl.workflows.down import DownResult

    require_rights(service, "down")
    manager = Manager(service.scope, server.environ)
    names = (unit.TARGET, unit.GUARD, unit.ENGINE)
    states = manager.states(*names)
    pid = states[unit.ENGINE].pid
    runs = any(state.active not in {"inactive", "failed"} for state in states.values())
    pauses.hold(server.paths.runtime, "down")
    progress(Step("stop", "stop", detail=", ".join(names)))
    manager.change("stop", *names)
    server.forget()
    progress(Step("stop", "stop", "done", ", ".join(names)))
    sudo = "sudo " if service.scope == "system" else ""
    return DownResult(changed=runs, ended=(pid,) if pid else (), service=True, start=f"{sudo}llmctl up")


def status(server: Server, profile: Profile | None, *, look_at_gpu: bool) -> ServiceStatus | None:
    """What the units and the guard say; None where none are installed.

    `look_at_gpu` asks the engine's runner which GPUs this shell finds, and the journal which ones the unit found. The
    rest of the comparison is made each time.
    """
    service = server.service
    if service is None:
        return None
    manager = Manager(service.scope, server.environ)
    name = unit.ENGINE if service.engine else unit.FOREIGN
    engine, guard = shown(manager, name, unit.GUARD)
    note = guard_note.read(server.paths.runtime)
    pid = engine.pid if engine else 0
    read = process.read_environ(pid) if pid else {}
    environ = read or service.environment
    its, mine = of_unit(manager, pid, look_at_gpu), of_shell(server, pid, look_at_gpu)
    return ServiceStatus(
        scope=service.scope,
        engine=engine.active if engine else None,
        guard=guard.active if guard else None,
        restarts=engine.restarts if engine else None,
        words=(guard.status if guard else "") or (note.words if note else None),
        reason=note.reason if note else None,
        degraded=note.degraded if note else None,
        drift=serving.lacks(profile, environ, ()) if profile is not None else (),
        unit=its,
        shell=mine,
        differences=tuple(differences(its, mine, Variables(environ, complete=bool(read)), server.environ)),
    )


def shown(manager: Manager, *names: str) -> list[UnitState | None]:
    try:
        return [*manager.states(*names).values()]
    except LlmctlError:
        return [None for _ in names]
