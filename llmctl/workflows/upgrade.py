"""engine upgrade and rollback: another engine in the place of the one that serves, or everything as it was.

One GPU does not hold two copies of a model, so the model is away while the new engine is tried. The lease keeps the
guard and every other llmctl off meanwhile, and dies with this process. What is on disk is at every moment one of two
states: the old engine chosen, or the new one with a note that it is not proved; `up` and the next upgrade put that
one back (workflows/unproved.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.engine import DEFAULT_VERSION, normal_version
from llmctl.core.progress import Consent, Progress, Step
from llmctl.engines import found
from llmctl.errors import LlmctlError, NotFound, Refused, ServerNotRunning, Unverified
from llmctl.system import devices, files, pauses, process
from llmctl.workflows import pause, unproved
from llmctl.workflows.trial import Measured, ModelCompared, judged, measure, place_and_ask, spoken, trying
from llmctl.workflows.unload import unload
from llmctl.workflows.up import Services, Up, UpResult

if TYPE_CHECKING:
    from llmctl.core.engine import Engine
    from llmctl.core.profile import Profile
    from llmctl.core.server_state import ServerState
    from llmctl.server import Running

Outcome = Literal["changed", "already", "kept", "planned"]


@dataclass(frozen=True)
class Upgraded:
    """What came of it. `outcome`: changed, already (nothing to do), kept (the old engine serves, `reasons` say why),
    or planned (--dry-run). `in_use` is the engine that serves now; `away_seconds` is how long no model answered."""

    outcome: Outcome
    from_: str
    to: str
    in_use: str
    away_seconds: float | None = None
    margin_percent: float | None = None
    models: tuple[ModelCompared, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Serving:
    """What serves when an upgrade begins: the server, what `up` recorded of it, and llmctl's engine behind it."""

    running: Running
    state: ServerState
    engine: Engine


class NotGood(Refused):
    """The new engine does not do what the old one did."""

    def __init__(self, reasons: tuple[str, ...], models: tuple[ModelCompared, ...] = ()) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.models = models


@dataclass(frozen=True)
class Change:
    """One run of upgrade or rollback. `profile` is the one that is up."""

    profile: Profile
    lock_path: Path
    services: Services
    progress: Progress
    consent: Consent

    def upgrade(self, version: str | None, margin_percent: float, *, dry_run: bool) -> Upgraded:
        """Raises Refused or ServerNotRunning where there is nothing that llmctl could upgrade."""
        now = self.serving()
        wanted = normal_version(version or DEFAULT_VERSION) or str(version)
        self.check_pinned(wanted)
        if now.engine.version == wanted:
            return Upgraded("already", now.engine.name, now.engine.name, now.engine.name)
        if dry_run:
            return Upgraded("planned", now.engine.name, wanted, now.engine.name, margin_percent=margin_percent)
        self.keep_chosen(now.engine)
        cuda = False if now.engine.backend == "cpu" else None
        new = self.services.engines.install(wanted, None, cuda, self.progress, consent=self.consent)
        if problem := self.check_starts(new):
            return Upgraded("kept", now.engine.name, new.name, now.engine.name, reasons=(problem,))
        with self.alone(f"llmctl engine upgrade {wanted}"):
            return self.replace(self.serving(), new, margin_percent)

    def rollback(self, *, dry_run: bool) -> Upgraded:
        """Back to the engine before, without asking the one that serves, which may be why."""
        store = self.services.engines.store
        back = store.previous()
        if back is None:
            raise NotFound("there is no engine before this one", "llmctl engine list")
        chosen = store.current()
        name = chosen.name if chosen else "none"
        self.check_pinned(back.version)
        if chosen is not None and chosen.prefix == back.prefix:
            return Upgraded("already", name, back.name, back.name)
        if dry_run:
            return Upgraded("planned", name, back.name, name)
        if problem := self.check_starts(back):
            return Upgraded("kept", name, back.name, name, reasons=(problem,))
        with self.alone("llmctl engine rollback"):
            return self.go_back(chosen or back, back)

    def serving(self) -> Serving:
        """What is up and llmctl's to change."""
        server = self.services.server
        state = server.state()
        running = server.find(server.address(self.profile)) if state else None
        if state is None or running is None or not state.models:
            raise ServerNotRunning("no model is up, so there is nothing to compare a new engine with", "llmctl up")
        if running.owner == "foreign" or running.pid is None:
            raise Refused(
                f"the server at {running.base_url} was not started by llmctl, which does not manage its engine",
                "upgrade it as it was installed",
                code="not_managed",
            )
        named = found.configured(server.environ)
        if named is not None and running.owner == "llmctl":
            raise Refused(
                f"{found.CONFIGURED} names the engine {named}, which llmctl does not manage",
                f"unset {found.CONFIGURED}",
                code="not_managed",
            )
        program = process.program_path(running.pid)
        engine = self.services.engines.store.of_program(program)
        if engine is None:
            raise Refused(
                f"the engine that serves is {program}, which llmctl does not manage",
                f"llmctl engine install {DEFAULT_VERSION}; llmctl engine use {DEFAULT_VERSION}; llmctl down; llmctl up",
                code="not_managed",
            )
        return Serving(running, state, engine)

    def check_pinned(self, version: str) -> None:
        wanted = self.profile.engine.version
        if wanted is not None and wanted != version:
            raise Refused(
                f"the profile {self.profile.reference} asks for exactly {wanted}, not {version}",
                "change engine.version in the profile first",
                code="version_pinned",
            )

    def keep_chosen(self, old: Engine) -> None:
        """Without a choice the newest engine is taken, so a new one would be used before it is proved."""
        store = self.services.engines.store
        if store.current() is None:
            store.choose(old.name)

    def check_starts(self, new: Engine) -> str | None:
        """Why it would fail, as far as that can be known before the model has to go: its programs run, and see a GPU
        where one is required."""
        environ = self.services.server.environ
        try:
            found.check_runs(new, environ)
        except LlmctlError as error:
            return error.message
        if self.profile.gpu.require != "none" and not devices.list_devices(new.runner, environ):
            return f"{new.name} finds no GPU, and the profile requires one"
        self.progress(Step("starts", "new engine", "done", f"{new.name} runs"))
        return None

    @contextmanager
    def alone(self, command: str) -> Iterator[None]:
        """Keep the guard and every other llmctl off, with what a killed one left put right first."""
        server = self.services.server
        pause.bury_dead(server.paths.runtime, self.progress)
        waiting = Step("wait", "wait", detail="another llmctl is at work here")
        with (
            pauses.lease(server.paths.runtime, command),
            files.exclusive(server.paths.state / "up.lock", lambda: self.progress(waiting)),
        ):
            unproved.put_back(self.services, self.progress)
            yield

    def replace(self, now: Serving, new: Engine, margin_percent: float) -> Upgraded:
        """Try the new engine; put it in the old one's place, or the old one back."""
        up = self.up_at(now.running)
        self.settle(up, now.engine)
        old = self.ask_old(now)
        gone = time.monotonic()
        compared: tuple[ModelCompared, ...] = ()
        try:
            self.unload(now)
            compared = self.try_out(now, new, old, margin_percent)
            self.flip(up, new, now.engine)
        except BaseException as error:
            self.restore(up, now.engine)
            if not isinstance(error, LlmctlError):
                raise
            away = time.monotonic() - gone
            models = error.models if isinstance(error, NotGood) else compared
            reasons = error.reasons if isinstance(error, NotGood) else (error.message,)
            name = now.engine.name
            return Upgraded("kept", name, new.name, name, away, margin_percent, models, reasons)
        away = time.monotonic() - gone
        return Upgraded("changed", now.engine.name, new.name, new.name, away, margin_percent, compared)

    def go_back(self, old: Engine, back: Engine) -> Upgraded:
        server, store = self.services.server, self.services.engines.store
        gone = time.monotonic()
        if server.state() is None:
            # Nothing is up: the next `up` takes it.
            store.flip(back, old)
            store.proved()
            return Upgraded("changed", old.name, back.name, back.name)
        up = self.up_at(server.find(server.address(self.profile)))
        try:
            self.flip(up, back, old)
        except BaseException as error:
            self.restore(up, old)
            if not isinstance(error, LlmctlError):
                raise
            away = time.monotonic() - gone
            return Upgraded("kept", old.name, back.name, old.name, away, reasons=(error.message,))
        return Upgraded("changed", old.name, back.name, back.name, time.monotonic() - gone)

    def up_at(self, running: Running | None) -> Up:
        """`up` of this profile, at the address that the server has where that was a free one."""
        profile = self.profile
        if profile.private and running is not None:
            port = int(running.base_url.rpartition(":")[2])
            profile = replace(profile, server=replace(profile.server, port=port, address_given=True))
        return Up(profile, self.lock_path, self.services, self.progress, self.consent)

    def settle(self, up: Up, engine: Engine) -> UpResult:
        """Make it true and insist on the proof, and on the engine."""
        result = up.settle()
        if result.verdict != "proved":
            reasons = [reason for model in result.models for reason in model.reasons]
            raise Unverified(f"under {engine.name}: {'; '.join(reasons)}", "llmctl status")
        if result.engine_version != engine.version:
            raise Unverified(f"Ollama {result.engine_version} serves, not {engine.version}", "llmctl engine list")
        return result

    def ask_old(self, now: Serving) -> list[Measured]:
        """What the resident models say and how fast, while they are still there."""
        client = self.services.client(now.running.base_url)
        asked = []
        for model in now.state.models:
            self.progress(Step(f"old {model.name}", "old engine", detail=f"asking {model.name}"))
            asked.append(measure(client, model.alias))
            self.progress(spoken(f"old {model.name}", "old engine", now.engine, asked[-1]))
        return asked

    def unload(self, now: Serving) -> None:
        unload(self.services.server, self.services.client(now.running.base_url), now.state, self.progress)

    def try_out(
        self, now: Serving, new: Engine, old: list[Measured], margin_percent: float
    ) -> tuple[ModelCompared, ...]:
        """Every model on the new engine, one after the other. Raises NotGood with the figures."""
        server = self.services.server
        inherited = server.environ if now.running.owner == "llmctl" else process.read_environ(now.running.pid or 0)
        self.progress(Step("trial", "trial", detail=f"{new.name} beside the old engine"))
        compared = []
        with trying(new, self.profile, now.running, server, inherited or server.environ) as started:
            self.progress(Step("trial", "trial", "done", f"Ollama {started.version} at {started.base_url}"))
            for model, before in zip(now.state.models, old, strict=True):
                self.progress(Step(f"new {model.name}", "new engine", detail=f"loading {model.name}"))
                place, after = place_and_ask(self.services, started, model, self.profile.gpu.require)
                self.progress(spoken(f"new {model.name}", "new engine", new, after))
                compared.append(judged(model, place, before, after, margin_percent))
        reasons = tuple(f"{one.name}: {reason}" for one in compared for reason in one.reasons)
        if reasons:
            raise NotGood(reasons, tuple(compared))
        return tuple(compared)

    def flip(self, up: Up, new: Engine, old: Engine) -> None:
        """Choose `new`, start the server anew with it, and prove; only then does it stay."""
        store = self.services.engines.store
        store.flip(new, old)
        self.progress(Step("restart", "restart", detail=f"with {new.name}"))
        unproved.restart(self.services.server, self.progress)
        self.settle(up, new)
        store.proved()
        self.progress(Step("restart", "restart", "done", f"{new.name} serves"))

    def restore(self, up: Up, old: Engine) -> None:
        """The old engine and its models, as they were. Raises when even that fails, saying so."""
        self.progress(Step("back", "back", detail=f"to {old.name}"))
        try:
            unproved.put_back(self.services, self.progress)
            self.settle(up, old)
        except LlmctlError as error:
            self.progress(Step("back", "back", "failed", error.message))
            raise type(error)(f"{old.name} is chosen again and is not back: {error.message}", "llmctl up") from error
        self.progress(Step("back", "back", "done", f"{old.name} serves, resident and proved"))
