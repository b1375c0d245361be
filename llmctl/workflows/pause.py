"""What keeps hands off: a command that has been given the GPU, or had it and died, a hold, another llmctl at work."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.progress import Progress, Step
from llmctl.errors import LlmctlError, Refused, ServerNotRunning
from llmctl.system import files, pauses
from llmctl.system.pauses import Lease

if TYPE_CHECKING:
    from llmctl.core.guard.facts import Pause
    from llmctl.system.paths import Paths


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


def hands_off(paths: Paths, *, at_work: bool) -> Pause | None:
    """Why a guard keeps its hands off. A lease whose holder died is ended here. `at_work`: who asks has the lock."""
    from llmctl.core.guard.facts import Pause

    lease = pauses.leased(paths.runtime)
    if lease is not None and lease.alive:
        return Pause("leased", f"{lease.command} (pid {lease.pid}) has the GPU")
    if lease is not None:
        with suppress(LlmctlError):
            pauses.bury(paths.runtime)
    hold = pauses.held(paths.runtime)
    if hold is not None:
        until = "" if hold.until_seconds is None else f", until {clock_time(hold.until_seconds)}"
        return Pause("held", f"held by {hold.by}{until}")
    locked = not at_work and files.lock_held(paths.state / "up.lock")
    return Pause("held", "another llmctl is at work here") if locked else None


def clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")
