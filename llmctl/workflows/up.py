"""up: make a profile true. Every step can be repeated, so an interrupted `up` is continued by the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving
from llmctl.core.placement import Buffer, Proof, parse_buffers
from llmctl.core.progress import Consent, Progress, Step, StepState
from llmctl.core.server_state import ActiveModel, ServerState
from llmctl.residency import Host, Resident, Wanted
from llmctl.server import Running
from llmctl.system import files, pauses, process
from llmctl.workflows import gate, pause, unproved
from llmctl.workflows import store as stores
from llmctl.workflows.up_server import serve

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.engines import Engines
    from llmctl.library import Library
    from llmctl.library.obtain import Pinned
    from llmctl.residency import Residency
    from llmctl.server import Server

WORST_FIRST = ("refuted", "unverified", "proved")


@dataclass(frozen=True)
class UpResult:
    """What `up` made true, and whether it had to change anything. `verdict` is the worst of the models'."""

    profile: str
    base_url: str
    owner: str
    engine_version: str
    verdict: str
    changed: bool
    models: tuple[ActiveModel, ...]
    lacks: tuple[serving.Lack, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Services:
    """What `up` composes; `client` and `library` are of the server at a URL."""

    server: Server
    engines: Engines
    residency: Residency
    client: Callable[[str], Client]
    library: Callable[[str], Library]


@dataclass(frozen=True)
class Up:
    """One run of `up`: what it works on and whom it tells."""

    profile: Profile
    lock_path: Path
    services: Services
    progress: Progress
    consent: Consent
    update: bool = False

    def run(self) -> UpResult:
        waited: list[str] = []

        def waiting() -> None:
            waited.append("another llmctl is at work here")
            self.progress(Step("wait", "wait", detail=waited[0]))

        with files.exclusive(self.services.server.paths.state / "up.lock", waiting):
            if waited:
                self.progress(Step("wait", "wait", "done", "the other llmctl has ended"))
            runtime = self.services.server.paths.runtime
            pause.refuse_load(runtime)
            pause.bury_dead(runtime, self.progress)
            pauses.release(runtime)
            unproved.put_back(self.services, self.progress)
            return self.settle()

    def settle(self) -> UpResult:
        """Make it true; the caller has the lock."""
        running, started = self.serve()
        return self.fill(running, started)

    def serve(self) -> tuple[Running, bool]:
        """The server that the profile asks for, and whether it was started now."""
        return serve(self)

    def fill(self, running: Running, started: bool) -> UpResult:
        """Get, load and prove every model; record what is true after each."""
        library = self.services.library(running.base_url)
        lock = library.read_lock(self.lock_path)
        library.know_lock(self.lock_path, lock)
        active: list[ActiveModel] = []
        notes: list[str] = []
        changed = started
        for spec in self.profile.models:
            passed = self.admit(spec, lock, running)
            pinned, lock = self.pin(library, spec, running)
            notes += [pinned.note] if pinned.note else []
            changed |= pinned.changed
            if spec.resident:
                model, loaded = self.make_resident(running, pinned, self.context(spec))
                model = replace(model, predicted=passed.predicted)
                gate.learn(self.services.server.paths.state, running.version, model)
                changed |= loaded
                active.append(model)
            self.services.server.record(self.state(running, tuple(active)))
        return UpResult(
            profile=self.profile.reference,
            base_url=running.base_url,
            owner=running.owner,
            engine_version=running.version,
            verdict=min((model.verdict for model in active), key=WORST_FIRST.index, default="proved"),
            changed=changed,
            models=tuple(active),
            lacks=self.lacks(running, lock),
            notes=tuple(notes),
        )

    def admit(self, spec: ModelSpec, lock: Lock, running: Running) -> gate.Passed:
        """Refuse, before anything is downloaded, what would not lie where the profile wants it."""
        known = lock.pin(spec.name)
        # What runs already has shown where it lies; the proof tells.
        runs = known is not None and process.runner_of(known.weights_digest, running.pid) is not None
        client = self.services.client(running.base_url)
        server = self.services.server
        passed = gate.admit(spec, self.profile, running, server, client, runs=runs)
        self.progress(Step(f"fit {spec.name}", "fit", "done" if passed.predicted else "skipped", passed.words))
        return passed

    def context(self, spec: ModelSpec) -> int:
        return spec.context or self.profile.server.context

    def pin(self, library: Library, spec: ModelSpec, running: Running) -> tuple[Pinned, Lock]:
        """Have the model, and its pin in the lock; one that is there already is no reason to touch the file."""
        with stores.changing(running, self.progress, self.consent) as ask:
            lock = library.read_lock(self.lock_path)
            pinned = self.ensure(library, lock, spec, running, ask)
            before, pin = lock.pin(spec.name), pinned.pin
            if before == pin:
                return pinned, lock
            return pinned, library.change_lock(self.lock_path, lambda now: now.repinned(before, pin))

    def ensure(self, library: Library, lock: Lock, spec: ModelSpec, running: Running, consent: Consent) -> Pinned:
        # The context of a server that llmctl did not start is not known, so the alias carries it.
        server_context = self.profile.server.context if running.owner != "foreign" else 0
        return library.ensure(
            spec,
            lock,
            context=self.context(spec),
            server_context=server_context,
            engine_version=running.version,
            store=Path(running.store) if running.store else None,
            update=self.update,
            progress=self.progress,
            consent=consent,
        )

    def make_resident(self, running: Running, pinned: Pinned, context: int) -> tuple[ActiveModel, bool]:
        """Load unless it is there, then prove. The model as it is now, and whether it was loaded."""
        client, residency, pin = self.services.client(running.base_url), self.services.residency, pinned.pin
        wanted = Wanted(pinned.digests, pin.weights_digest, context, self.profile.gpu.require)
        host = Host(running.owner != "foreign", running.pid)
        gained, loading = None, not residency.loaded(client, wanted, host)
        if loading:
            self.progress(Step(f"load {pin.name}", "load", detail=pin.name))
            gained = residency.load(client, pinned.alias, wanted.require, owned=host.owned)
        self.progress(Step(f"load {pin.name}", "load", "done" if loading else "skipped", pin.name))
        resident = residency.prove(client.ps(), wanted, host, self.buffers(host, pin.weights_digest), gained)
        self.report(pinned, resident.proof)
        return active(pinned, context, resident), loading

    def buffers(self, host: Host, weights_digest: str) -> Callable[[int | None], tuple[Buffer, ...] | None]:
        """The runner's lines are in the log of an owned server only."""
        log = self.services.server.log() if host.owned else ""
        return lambda _: parse_buffers(log, weights_digest)

    def report(self, pinned: Pinned, proof: Proof) -> None:
        words = "; ".join(proof.reasons) or f"digest and context agree, on {proof.place}"
        state: StepState = "done" if proof.verdict == "proved" else "failed"
        self.progress(Step(f"proof {pinned.pin.name}", "proof", state, words))

    def state(self, running: Running, models: tuple[ActiveModel, ...]) -> ServerState:
        server = self.profile.server
        return ServerState(
            profile=self.profile.reference,
            base_url=running.base_url,
            owner=running.owner,
            engine_version=running.version,
            store=running.store,
            require=self.profile.gpu.require,
            context=server.context,
            parallel=server.parallel,
            kv_cache=server.kv_cache,
            models=models,
        )

    def lacks(self, running: Running, lock: Lock) -> tuple[serving.Lack, ...]:
        if running.owner != "foreign":
            return ()
        environ = process.read_environ(running.pid) if running.pid else {}
        runners = (process.runner_of(pin.weights_digest, running.pid) for pin in lock.models)
        argv = next((runner.argv for runner in runners if runner is not None), ())
        return serving.lacks(self.profile, environ, argv)


def active(pinned: Pinned, context: int, resident: Resident) -> ActiveModel:
    claim, pin = resident.witnesses.claim, pinned.pin
    return ActiveModel(
        name=pin.name,
        served=pin.served,
        alias=pinned.alias,
        manifest_digest=pin.manifest_digest,
        served_digest=pinned.served_digest,
        weights_digest=pin.weights_digest,
        quantization=pin.quantization,
        context=context,
        size_bytes=claim.size_bytes if claim and claim.size_bytes else None,
        verdict=resident.proof.verdict,
        place=resident.proof.place,
        reasons=resident.proof.reasons,
        runner_pid=resident.runner_pid,
        buffers=resident.witnesses.buffers,
        source=pin.source,
    )
