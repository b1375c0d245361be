"""An engine that was put in place and never proved, because llmctl was killed or the proof failed: put the old one
back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.progress import Progress, Step
from llmctl.server import STOP_SECONDS
from llmctl.system import process

if TYPE_CHECKING:
    from llmctl.server import Server
    from llmctl.workflows.up import Services

# The processes of a trial carry a marker of their own: nothing must take them for the server.
TRIAL = "#trial"


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
    if owned is None:
        return
    runs = store.of_program(Path(f"/proc/{owned.pid}/exe"))
    if chosen is None or runs is None or runs.prefix != chosen.prefix:
        restart(services)


def restart(services: Services) -> None:
    """End the server so that the chosen engine serves next: `up` starts it, and under systemd its unit does."""
    from llmctl.system import systemd

    owned = services.server.owned()
    if owned is not None and systemd.around(owned.pid):
        restart_unit(services.server)
    else:
        services.server.stop()


def restart_unit(server: Server) -> None:
    from llmctl.core import unit
    from llmctl.system import systemd
    from llmctl.system.paths import SYSTEM

    scope: unit.Scope = "system" if server.paths == SYSTEM else "user"
    systemd.Manager(scope, server.environ).change("restart", unit.ENGINE)


def trial_marker(server: Server) -> str:
    return server.owner + TRIAL


def end_trial(server: Server) -> None:
    """End whatever a trial has started, also one whose llmctl was killed."""
    while found := process.marked(trial_marker(server)):
        first = next((one for one in found if "serve" in one.argv[1:]), found[0])
        process.stop(first.pid, STOP_SECONDS)
