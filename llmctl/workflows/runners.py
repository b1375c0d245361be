"""The runners of a server, as a guard sees them: those of its own models, and those of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.client.runner import health as health_of
from llmctl.client.runner import processing as is_processing
from llmctl.core.guard.facts import Health, Runner
from llmctl.system import process, vitals

if TYPE_CHECKING:
    from llmctl.system.vitals import Vitals
    from llmctl.workflows.watched import Watched

STOPPED = frozenset({"T", "t"})


def asked(found: Vitals, held_bytes: int | None, slots: bool) -> Runner:
    """The runner with what it says of itself, on its own port. `slots`: also whether a request is in work."""
    port = port_of(found.pid)
    health: Health = "unasked"
    processing = None
    if found.state in STOPPED:
        health = "silent"
    elif port is not None:
        health = health_of(port)
        processing = is_processing(port) if slots and health == "ok" else None
    return Runner(
        found.pid, found.identity, found.state, found.cpu_seconds, found.read_bytes, health, processing, held_bytes
    )


def of_others(server_pid: int | None, models: Sequence[Watched]) -> tuple[list[Vitals], bool]:
    """The foreign runners, and whether there is one without a model, which only tells which GPUs there are. A runner
    of the guard's own models that has only just begun is taken for what it is."""
    found, discovering = [], False
    mine = {blob_name(model): model for model in models}
    for one in process.having("cmdline", "llama-server"):
        if one.program != "llama-server" or one.parent_pid != server_pid:
            continue
        weights, read = one.argument("--model"), vitals.read(one.pid)
        if weights is None:
            discovering = True
        elif (model := mine.get(Path(weights).name)) is not None:
            model.runner = model.runner or read
        elif read is not None:
            found.append(read)
    return found, discovering


def blob_name(model: Watched) -> str:
    return "sha256-" + model.want.weights_digest.removeprefix("sha256:")


def port_of(pid: int) -> int | None:
    """The port that a runner was told to listen on."""
    found = process.read(pid)
    port = found.argument("--port") if found else None
    return int(port) if port and port.isdigit() else None
