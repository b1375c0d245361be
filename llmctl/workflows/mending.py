"""The steps that the guard takes, and the one that it has under way. What a step does is said to nobody here."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import Address
from llmctl.core.guard.facts import Action, Errand, Reason
from llmctl.errors import LlmctlError, NotFound, Refused
from llmctl.library.obtain import Obtain
from llmctl.system import pauses, process, vitals
from llmctl.system.files import atomic_write, exclusive

if TYPE_CHECKING:
    from llmctl.core.pin import Pin
    from llmctl.core.profile import ModelSpec
    from llmctl.library import Library
    from llmctl.library.obtain import Pinned
    from llmctl.server import Running
    from llmctl.workflows.looking import Lookout
    from llmctl.workflows.up import Up
    from llmctl.workflows.watched import Watched

# A stuck process does not react to SIGTERM; one that is alive needs no longer.
RUNNER_GRACE_SECONDS = 2.0
SERVER_GRACE_SECONDS = 15.0
UNLOAD_SECONDS = 30.0
POLL_SECONDS = 0.1
# In the runtime folder. A path unit of root watches it, ends the engine's unit, loads nvidia_uvm anew, deletes the file
# and starts the engine again.
UVM_TRIGGER = "reset-uvm"
UVM_SECONDS = 90.0


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    action: Action
    model: str
    took_seconds: float
    error: str | None = None


class Errands:
    """One step at a time, in a thread, so that the loop goes on looking while a model loads for minutes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # A queue: the loop takes from it while a step may be adding to it.
        self._done: deque[tuple[int, Outcome]] = deque()
        self._number = 0
        self.current: Errand | None = None
        self.finished = threading.Event()

    def start(self, action: Action, model: str, call: Callable[[], None]) -> None:
        """Begin a step. One that is under way is not waited for any more: it is stuck, and the new one ends that."""
        self._number += 1
        began, number = self._clock(), self._number
        self.current = Errand(action, began, model)

        def work() -> None:
            error = None
            try:
                call()
            except LlmctlError as failure:
                error = failure.message
            except Exception as failure:
                # A fault in one step must not leave the guard without its loop.
                error = f"{type(failure).__name__}: {failure}"
            self._done.append((number, Outcome(action, model, self._clock() - began, error)))
            self.finished.set()

        threading.Thread(target=work, name=f"llmctl-{action}", daemon=True).start()

    def ended(self) -> Outcome | None:
        """How the current step ended; None while it goes on."""
        self.finished.clear()
        while self._done:
            number, outcome = self._done.popleft()
            if number == self._number:
                self.current = None
                return outcome
        return None


@dataclass
class Mender:
    """What may be done here, and the doing of it. `uvm`: a root unit is there that loads nvidia_uvm anew."""

    lookout: Lookout
    up: Up
    uvm: bool = False

    def can(self, model: Watched) -> frozenset[Action]:
        """A server that llmctl did not start is never signalled; a runner only where it is this user's."""
        allowed: set[Action] = {"load", "probe"}
        if model.runner is not None and model.runner.user == os.getuid():
            allowed.add("end_runner")
        if self.lookout.owner != "foreign":
            allowed.add("restart_engine")
            if self.uvm:
                allowed.add("reset_uvm")
        return frozenset(allowed)

    def step(self, action: Action, model: Watched, reason: Reason) -> Callable[[], None]:
        steps: dict[Action, Callable[[], None]] = {
            "load": lambda: self.load(model, unload=reason in {"on_cpu", "partial"}),
            "probe": lambda: self.probe(model),
            "end_runner": lambda: self.end_runner(model),
            "restart_engine": self.restart_engine,
            "reset_uvm": self.reset_uvm,
        }

        def guarded() -> None:
            # A person may have begun to hold it since the look.
            if self.lookout.pause() is None:
                steps[action]()

        return guarded

    def load(self, model: Watched, *, unload: bool) -> None:
        """Have the model loaded under its alias; it is never downloaded."""
        running = self.running
        client = self.up.services.client(running.base_url)
        if unload and model.raw is not None:
            client.unload(model.raw.name)
            self._wait_until_gone(model)
        if model.alias != "there":
            self.regain(model, running)
        owned = self.lookout.owner != "foreign"
        want = model.want
        model.gained_bytes = self.up.services.residency.load(client, want.alias, want.require, owned=owned)

    @property
    def running(self) -> Running:
        running = self.lookout.running
        if running is None:
            raise NotFound(f"no server at {self.lookout.address.url}", "llmctl up")
        return running

    def _wait_until_gone(self, model: Watched) -> None:
        deadline = time.monotonic() + UNLOAD_SECONDS
        while model.runner and time.monotonic() < deadline:
            now = vitals.read(model.runner.pid)
            if now is None or now.identity != model.runner.identity:
                return
            time.sleep(POLL_SECONDS)

    def regain(self, model: Watched, running: Running) -> None:
        """Give the pinned weights their alias again, where the server or a file of this machine has them."""
        library = self.up.services.library(running.base_url)
        lock = library.read_lock(self.up.lock_path)
        spec = next(spec for spec in self.up.profile.models if spec.name == model.want.name)
        pin = lock.pin(spec.name)
        found = None if pin is None else self._kept(library, pin, spec, running)
        if found is None and spec.source not in {"registry", "starter"}:
            found, _ = self.up.pin(library, spec, running)
        if found is None:
            raise NotFound(f"the server no longer has {spec.name}", f"{model.want.llmctl} up")
        model.want = replace(model.want, alias=found.alias, digests=model.want.digests | found.digests)

    def _kept(self, library: Library, pin: Pin, spec: ModelSpec, running: Running) -> Pinned | None:
        context = self.up.context(spec)
        server_context = self.up.profile.server.context if self.lookout.owner != "foreign" else 0
        return Obtain(
            client=library.client,
            paths=library.paths,
            environ=library.environ,
            spec=spec,
            pin=pin,
            context=context if context != server_context else None,
            engine_version=running.version,
            store=Path(running.store) if running.store else None,
            update=False,
            progress=self.up.progress,
            consent=self.up.consent,
        ).installed(pin)

    def probe(self, model: Watched) -> None:
        """One token, without anything that would load the model anew or change how long it stays."""
        client = self.up.services.client(self.running.base_url)
        request = {"model": model.want.alias, "raw": True, "options": {"num_predict": 1}}
        for _ in client.generate(request, ["1"]):
            pass

    def end_runner(self, model: Watched) -> None:
        """End a runner of this server with the pinned weights, and nothing else."""
        seen = model.runner
        found = process.read(seen.pid) if seen else None
        now = vitals.read(seen.pid) if seen else None
        if seen is None or found is None or now is None or now.identity != seen.identity:
            return
        blob = "sha256-" + model.want.weights_digest.removeprefix("sha256:")
        of_here = self.lookout.pid in {None, now.parent_pid}
        if found.program != "llama-server" or not (found.argument("--model") or "").endswith(blob) or not of_here:
            raise Refused(f"pid {seen.pid} is not a runner of {model.want.name}")
        process.stop(seen.pid, RUNNER_GRACE_SECONDS)

    def restart_engine(self) -> None:
        """Under systemd Restart= revives it; a server that llmctl started is started again by llmctl."""
        if self.lookout.owner == "systemd":
            if (found := self.lookout.server_process) is not None:
                process.stop(found.pid, SERVER_GRACE_SECONDS)
            return
        server = self.up.services.server

        def busy() -> None:
            raise Refused("another llmctl is at work here")

        with exclusive(server.paths.state / "up.lock", busy):
            if pauses.held(server.paths.runtime) is not None:
                return
            server.stop()
            running, _ = self.up.serve()
            host, _, port = running.base_url.removeprefix("http://").rpartition(":")
            self.lookout.address = Address(host, int(port), "running server")

    def reset_uvm(self) -> None:
        """Let root load nvidia_uvm anew, and wait for it."""
        trigger = self.up.services.server.paths.runtime / UVM_TRIGGER
        atomic_write(trigger, b"")
        deadline = time.monotonic() + UVM_SECONDS
        while trigger.exists() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if trigger.exists():
            trigger.unlink(missing_ok=True)
            raise NotFound("nobody loaded nvidia_uvm anew", "llmctl install-service --help")
        if self.lookout.owner != "systemd":
            self.restart_engine()
