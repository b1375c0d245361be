"""What a lease means for the other verbs: a command has been given the GPU, or had it and died."""

from __future__ import annotations

import time
from pathlib import Path

from llmctl.core.progress import Progress, Step
from llmctl.errors import LlmctlError, Refused, ServerNotRunning
from llmctl.system import pauses
from llmctl.system.pauses import Lease


def living(runtime: Path) -> Lease | None:
    """The lease of a command that runs; None where there is none, or its holder is gone."""
    found = pauses.leased(runtime)
    return found if found and found.alive else None


def refuse_load(runtime: Path) -> None:
    """Raises Refused where a load would take the GPU from the command that was given it."""
    if found := living(runtime):
        raise given_to(found, Refused)


def refuse_question(runtime: Path) -> None:
    """The same for a question, which would load the model again: to whoever asks, there is no server now."""
    if found := living(runtime):
        raise given_to(found, ServerNotRunning)


def given_to(lease: Lease, kind: type[LlmctlError]) -> LlmctlError:
    return kind(words(lease), "wait until it has ended; llmctl status tells", code="leased")


def words(lease: Lease) -> str:
    minutes = max(0, int(time.time() - lease.since_seconds)) // 60
    since = f" since {minutes} min" if minutes else ""
    if lease.alive:
        return f"the GPU is given to `{lease.command}` (pid {lease.pid}){since}"
    return f"`{lease.command}` (pid {lease.pid}) had the GPU and ended without giving it back"


def note(runtime: Path) -> str | None:
    """What `status` says of it; None where there is no lease."""
    found = pauses.leased(runtime)
    if found is None:
        return None
    return words(found) if found.alive else f"{words(found)}: llmctl up"


def bury_dead(runtime: Path, progress: Progress) -> None:
    """Forget a lease whose holder died, and say so."""
    found = pauses.leased(runtime)
    if found is None or found.alive:
        return
    pauses.bury(runtime)
    progress(Step("lease", "lease", "done", words(found)))
