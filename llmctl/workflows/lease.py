"""yield: give the GPU to a command, and take it back."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.progress import Consent, Progress, Step
from llmctl.errors import LlmctlError, Unverified
from llmctl.system import child, files, guard_note, pauses
from llmctl.workflows import pause
from llmctl.workflows.status import status
from llmctl.workflows.unload import unload
from llmctl.workflows.up import Services, Up

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.core.server_state import ServerState

# A guard looks every few seconds and then loads; after this the model is loaded without it.
GUARD_SECONDS = 60.0
POLL_SECONDS = 0.2

# What the others are told of a command.
WORDS_LENGTH = 80

# Opens the checklist on stderr: it must be closed while the command has the terminal.
Steps = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Yielded:
    """How the command ended, and what went wrong with what came after it; None where the model is back."""

    status: int
    timed_out: bool
    problem: LlmctlError | None


@dataclass(frozen=True)
class Yield:
    """One run of `yield`. `profile` and `lock_path` tell what was up, when it is brought back."""

    services: Services
    profile: Callable[[str], Profile]
    lock_path: Callable[[Profile], Path]
    steps: Steps
    consent: Consent
    environ: Mapping[str, str]

    @property
    def runtime(self) -> Path:
        return self.services.server.paths.runtime

    def run(self, argv: Sequence[str], timeout_seconds: float | None) -> Yielded:
        """Refused when another command has the GPU; CommandMissing or CommandNotRunnable before anything is done."""
        child.check_runnable(argv, self.environ)
        who = child.invoking_account(self.environ)
        begun = False
        try:
            with pauses.lease(self.runtime, shorten(shlex.join(argv))):
                begun = True
                self.make_room()
                ended = child.run_in_foreground(argv, self.environ, who, timeout_seconds)
        except BaseException:
            # Interrupted before the command began, or it could not be started.
            if begun:
                self.bring_back()
            raise
        return Yielded(ended.status, ended.timed_out, self.bring_back())

    def make_room(self) -> None:
        state = self.services.server.state()
        with self.steps() as progress:
            if state is None:
                progress(Step("unload", "unload", "skipped", "nothing is up"))
                return
            # An `up` that is at work ends first; the next one sees the lease.
            with files.exclusive(self.services.server.paths.state / "up.lock", lambda: None):
                found = unload(self.services.server, self.services.client(state.base_url), state, progress)
            if found.left:
                progress(Step("left", "left", "done", f"loaded by others, and left: {', '.join(found.left)}"))

    def bring_back(self) -> LlmctlError | None:
        """Make and prove what was up; None when it is, or when nothing is meant to be."""
        state = self.services.server.state()
        if state is None or not state.models:
            return None
        try:
            with self.steps() as progress:
                if other := pause.living(self.runtime):
                    progress(Step("lease", "lease", "skipped", pause.words(other)))
                    return None
                if not self.guard_did(state, progress):
                    self.up(state, progress)
        except LlmctlError as error:
            return error
        return None

    def guard_did(self, state: ServerState, progress: Progress) -> bool:
        """Wait for the guard, where one is at work, to bring the model back. Whether it is resident and proved."""
        note = guard_note.read(self.runtime)
        if note is None or not note.alive or pauses.held(self.runtime):
            return False
        progress(Step("guard", "guard", detail="the guard brings the model back"))
        deadline = time.monotonic() + GUARD_SECONDS
        while time.monotonic() < deadline:
            if status(self.services.server, self.services.client(state.base_url), state).good:
                progress(Step("guard", "guard", "done", "resident and proved"))
                return True
            time.sleep(POLL_SECONDS)
        progress(Step("guard", "guard", "failed", f"not resident {GUARD_SECONDS:.0f} s after the command's end"))
        return False

    def up(self, state: ServerState, progress: Progress) -> None:
        profile = self.profile(state.profile)
        if state.require == "partial":
            profile = profile.partial
        held = pauses.held(self.runtime)
        result = Up(profile, self.lock_path(profile), self.services, progress, self.consent).run()
        if held is not None:
            # `up` ends a hold, which a person asked for and not this.
            pauses.hold(self.runtime, held.by, held.left_seconds)
        if result.verdict != "proved":
            reasons = "; ".join(reason for model in result.models for reason in model.reasons)
            raise Unverified(f"the model is not back as it was: {reasons}", "llmctl up")


def shorten(command: str) -> str:
    return command if len(command) <= WORDS_LENGTH else command[: WORDS_LENGTH - 3] + "..."
