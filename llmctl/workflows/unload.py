"""Take the models off the GPU, and know that they are off: no runner is left, and its memory is free again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.progress import Progress, Step
from llmctl.errors import EngineError, ServerNotRunning
from llmctl.system import nvml, process
from llmctl.workflows.status import digests_of

if TYPE_CHECKING:
    from llmctl.client import Client, LoadedModel
    from llmctl.core.server_state import ServerState
    from llmctl.server import Server

# An answer that is being written is waited for; a runner that has not ended by then is stuck.
RUNNER_SECONDS = 600.0
# The driver gives memory back within moments of a process's end.
MEMORY_SECONDS = 15.0
TELL_SECONDS = 2.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Unloaded:
    """The names that were loaded, and on an attached server those of others that were left loaded."""

    names: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def unload(server: Server, client: Client, state: ServerState, progress: Progress) -> Unloaded:
    """Unload everything of an owned server, and of an attached one what `up` loaded.

    Raises EngineError when a runner does not end.
    """
    owned = state.owner != "foreign"
    try:
        loaded = client.ps()
    except ServerNotRunning:
        loaded = []
        if server.owned() is None:
            # Runners whose server was killed hold the GPU all the same.
            server.stop()
    pinned = frozenset(digest for model in state.models for digest in digests_of(model))
    mine = [entry for entry in loaded if owned or entry.digest in pinned]
    if not mine:
        progress(Step("unload", "unload", "skipped", "no model is loaded"))
    else:
        clear(client, state, server, mine, progress)
    left = tuple(entry.name for entry in loaded if entry not in mine)
    return Unloaded(tuple(entry.name for entry in mine), left)


def clear(client: Client, state: ServerState, server: Server, mine: Sequence[LoadedModel], progress: Progress) -> None:
    names = ", ".join(entry.name for entry in mine)
    progress(Step("unload", "unload", detail=names))
    runners = runners_of(server, state)
    used = nvml.used_bytes()
    held = sum(nvml.total_process_bytes(pid) or 0 for pid in runners)
    for entry in mine:
        client.unload(entry.name)
    wait_for_runners(runners, progress)
    while any(entry.digest in {one.digest for one in mine} for entry in client.ps()):
        # The list follows the runner's end within moments.
        time.sleep(POLL_SECONDS)
    back = used is None or memory_is_back(used, held)
    words = names if back else f"{names}; its memory is not free yet"
    progress(Step("unload", "unload", "done", words))


def runners_of(server: Server, state: ServerState) -> list[int]:
    """The processes that have the models: those of the server of `state`, as far as they can be seen."""
    owned = server.owned() if state.owner != "foreign" else None
    here = owned or process.server_at(int(state.base_url.rpartition(":")[2]))
    # Another server may run the same weights; without this one's pid nobody can tell its runner from theirs.
    pinned = [process.runner_of(model.weights_digest, here.pid) for model in state.models] if here else []
    marked = [one for one in server.processes() if "serve" not in one.argv[1:]] if owned else []
    return sorted({one.pid for one in (*pinned, *marked) if one is not None})


def wait_for_runners(pids: Sequence[int], progress: Progress) -> None:
    """Wait for the end of processes. Raises EngineError when one lives on."""
    started = time.monotonic()
    told = False
    while living := [pid for pid in pids if process.read(pid) is not None]:
        waited = time.monotonic() - started
        if waited > RUNNER_SECONDS:
            raise EngineError(f"runner pid {living[0]} does not end {waited:.0f} s after the unload", "llmctl logs")
        if waited > TELL_SECONDS and not told:
            progress(Step("unload", "unload", detail="waiting for the answer that is being written"))
            told = True
        time.sleep(POLL_SECONDS)


def memory_is_back(used_bytes: int, held_bytes: int) -> bool:
    """Whether the GPUs have got back what the runners held, of what was in use before; waits a little for it."""
    deadline = time.monotonic() + MEMORY_SECONDS
    # Other programs take and give meanwhile, so that a part of it is enough.
    enough = used_bytes - held_bytes * 9 // 10
    while (now := nvml.used_bytes()) is not None and now > enough:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
