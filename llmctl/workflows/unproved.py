"""An engine that was put in place and never proved, because llmctl was killed or the proof failed: put the old one
back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.progress import Progress, Step
from llmctl.errors import EngineError, ServerUnreachable
from llmctl.server import START_SECONDS, STOP_SECONDS, answering
from llmctl.system import process

if TYPE_CHECKING:
    from llmctl.core.unit import Scope
    from llmctl.server import Server
    from llmctl.workflows.up import Services

# The processes of a trial carry a marker of their own: nothing must take them for the server.
TRIAL = "#trial"
POLL_SECONDS = 0.1


def put_back(services: Services, progress: Progress) -> None:
    """Undo a flip that was not proved. A server that runs the wrong engine is ended; `up` starts the right one.

    Only under the lock that `up` takes, and never beside an upgrade that is at work.
    """
    end_trial(services.server)
    store = services.engines.store
    undone = store.undo_flip()
    if undone is None:
        return
    chosen = store.current()
    progress(Step("undo", "engine", "done", f"{undone} was not proved; back to {chosen.name if chosen else 'before'}"))
    owned = services.server.owned()
    runs = store.of_program(Path(f"/proc/{owned.pid}/exe")) if owned else None
    if chosen is None or runs is None or runs.prefix != chosen.prefix:
        restart(services.server, progress)


def restart(server: Server, progress: Progress) -> None:
    """End the server so that the chosen engine serves next: `up` starts it, and under systemd its unit does."""
    if server.service is not None and server.service.engine:
        restart_unit(server, server.service.scope, progress)
    else:
        server.stop()


def restart_unit(server: Server, scope: Scope, progress: Progress) -> None:
    """Restart the engine's unit and wait until a new server answers. Raises EngineError when it ends instead."""
    from llmctl.core import unit
    from llmctl.system import systemd

    manager = systemd.Manager(scope, server.environ)
    before = manager.show(unit.ENGINE)
    if before.active == "failed":
        manager.change("reset-failed", unit.ENGINE)
    manager.change("--no-block", "restart", unit.ENGINE)
    progress(Step("unit", "unit", detail=f"{unit.ENGINE} starts anew"))
    deadline = time.monotonic() + START_SECONDS
    seen = 0
    while True:
        now = manager.show(unit.ENGINE)
        if now.pid not in {0, before.pid}:
            # A second process means that the first one has ended.
            if now.active == "failed" or seen not in {0, now.pid}:
                break
            seen = now.pid
            if answers(server):
                progress(Step("unit", "unit", "done", f"{unit.ENGINE} answers"))
                return
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    last = (manager.journal(unit.ENGINE, 1) or ["it does not answer"])[-1]
    raise EngineError(f"{unit.ENGINE} does not come up: {last[:300]}", manager.shown_status())


def answers(server: Server) -> bool:
    from llmctl.client import Client

    if server.service is None or server.service.url is None:
        return False
    try:
        return answering(Client(server.service.url, answer_seconds=2.0)) is not None
    except ServerUnreachable:
        return False


def trial_marker(server: Server) -> str:
    return server.owner + TRIAL


def end_trial(server: Server) -> None:
    """End whatever a trial has started, also one whose llmctl was killed."""
    while found := process.marked(trial_marker(server)):
        first = next((one for one in found if "serve" in one.argv[1:]), found[0])
        process.stop(first.pid, STOP_SECONDS)
