"""down: stop what llmctl started, and leave alone what it did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.progress import Progress, Step
from llmctl.errors import LlmctlError
from llmctl.system import files, pauses

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.server_state import ServerState
    from llmctl.server import Server


@dataclass(frozen=True)
class DownResult:
    """What `down` ended: process ids, and the names of unloaded models. `attached` names a server left alone;
    `service`: it was a unit of systemd, which starts again at the next boot, or with the command in `start`."""

    changed: bool
    ended: tuple[int, ...] = ()
    unloaded: tuple[str, ...] = ()
    attached: str | None = None
    service: bool = False
    start: str = "llmctl up"


def down(server: Server, client: Callable[[str], Client], unload: bool, progress: Progress) -> DownResult:
    """Unload, end the owned server, and check that none of its runners lives. Idempotent."""
    with files.exclusive(server.paths.state / "up.lock", lambda: None):
        state = server.state()
        if server.owned() is None and state is not None and state.owner == "foreign":
            return leave(server, state, client(state.base_url), unload, progress)
        pauses.hold(server.paths.runtime, "down")
        if not server.loose():
            server.forget()
            return DownResult(changed=False)
        unloaded = let_go(client, state) if state is not None and server.owned() else ()
        progress(Step("stop", "stop", detail="the server and its runners"))
        ended = server.stop()
        server.forget()
        progress(Step("stop", "stop", "done", f"ended pid {', '.join(map(str, ended))}"))
        return DownResult(changed=True, ended=tuple(ended), unloaded=unloaded)


def let_go(client: Callable[[str], Client], state: ServerState) -> tuple[str, ...]:
    """Unload before the end, so that a runner is asked before it is killed. A deaf server is ended anyway."""
    unloaded = []
    for model in state.models:
        try:
            client(state.base_url).unload(model.alias)
        except LlmctlError:
            break
        unloaded.append(model.name)
    return tuple(unloaded)


def leave(server: Server, state: ServerState, client: Client, unload: bool, progress: Progress) -> DownResult:
    """A server that llmctl did not start goes on; its model stays too, unless `unload`."""
    unloaded = []
    if unload:
        for model in state.models:
            client.unload(model.alias)
            unloaded.append(model.name)
            progress(Step(f"unload {model.name}", "unload", "done", model.name))
        server.forget()
    return DownResult(changed=bool(unloaded), unloaded=tuple(unloaded), attached=state.base_url)
