"""up: make a profile true. Every step can be repeated, so an interrupted `up` is continued by the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving
from llmctl.core.engine import DEFAULT_VERSION, MINIMUM_VERSION, is_new_enough
from llmctl.core.pin import EnginePin
from llmctl.core.placement import Buffer, Proof, parse_buffers
from llmctl.core.progress import Consent, Progress, Step, StepState
from llmctl.core.server_state import ActiveModel, ServerState
from llmctl.errors import EngineMissing, Refused
from llmctl.residency import Host, Resident, Wanted
from llmctl.server import Running
from llmctl.system import devices, files, pauses, process, systemd
from llmctl.workflows import gate, pause, unproved
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.address import Address
    from llmctl.core.engine import Engine
    from llmctl.core.pin import Lock
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.engines import Engines
    from llmctl.library import Library
    from llmctl.library.obtain import Pinned
    from llmctl.residency import Residency
    from llmctl.server import Server

WHOSE = {
    "llmctl": "started by llmctl",
    "systemd": "a unit of systemd",
    "foreign": "not started by llmctl: attached",
}
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
        server = self.services.server
        address = server.address(self.profile)
        owned = server.owned()
        if owned is not None and not self.suits(owned, address):
            refuse_drift(owned)
            self.progress(Step("stop", "stop", detail="a server with other settings"))
            server.stop()
            server.forget()
            self.progress(Step("stop", "stop", "done", "ended the server of the other settings"))
        elif owned is None and server.loose():
            self.progress(Step("stop", "stop", detail="runners whose server was killed"))
            server.stop()
            self.progress(Step("stop", "stop", "done", "ended runners whose server was killed"))
        running = server.find(address)
        if running is not None:
            self.accept(running)
            return running, False
        engine = self.engine()
        return self.start(engine, address), True

    def suits(self, owned: process.Process, address: Address) -> bool:
        environ = owned.environ
        return (
            environ.get(serving.SETTINGS) == serving.fingerprint(self.profile)
            and environ.get("OLLAMA_HOST") == address.url.removeprefix("http://")
            and environ.get("OLLAMA_MODELS") == str(self.services.server.store(self.profile))
        )

    def accept(self, running: Running) -> None:
        """Refuse a running server that cannot do what the profile asks."""
        wanted = self.profile.engine.version
        if not is_new_enough(running.version):
            raise EngineMissing(
                f"the server at {running.base_url} is Ollama {running.version}; llmctl needs {MINIMUM_VERSION}",
                "upgrade it, or set server.port in the profile to another port",
            )
        if wanted is not None and running.version != wanted and running.owner == "foreign":
            raise Refused(
                f"the server at {running.base_url} is Ollama {running.version}; the profile asks for {wanted}",
                "set server.port in the profile to another port, or remove engine.version",
            )
        detail = f"Ollama {running.version} at {running.base_url}, {WHOSE[running.owner]}"
        self.progress(Step("server", "server", "skipped", detail))

    def engine(self) -> Engine:
        """An engine for the profile. The hash of a release archive is kept in the lock and holds from then on."""
        profile, library = self.profile, self.services.library(self.services.server.address(self.profile).url)
        pin = library.read_lock(self.lock_path).engine
        same = pin is not None and pin.version == (profile.engine.version or DEFAULT_VERSION)
        engine = self.services.engines.ensure(
            profile.engine.version,
            cpu_only_allowed=profile.gpu.require == "none",
            expected_sha256=pin.release_sha256 if pin and same else None,
            progress=self.progress,
            consent=self.consent,
        )
        found = EnginePin(engine.version, engine.release_sha256)
        if engine.release_sha256 is not None and found != pin:
            library.change_lock(self.lock_path, lambda lock: replace(lock, engine=found))
        if profile.gpu.require != "none":
            self.require_gpu(engine)
        return engine

    def require_gpu(self, engine: Engine) -> None:
        """Fail before anything is started or downloaded when the engine sees no GPU at all."""
        found = devices.list_devices(engine.runner, self.services.server.environ)
        if not found:
            self.progress(Step("gpu", "gpu", "failed", "the engine finds none"))
            raise Refused(
                f"the profile requires a GPU and {engine.runner} finds none",
                "llmctl up cpu",
                code="no_gpu",
            )
        names = ", ".join(f"{device.name} {device.description}" for device in found)
        self.progress(Step("gpu", "gpu", "done", names))

    def start(self, engine: Engine, address: Address) -> Running:
        self.progress(Step("server", "server", detail=f"starting Ollama {engine.version} at {address.url}"))
        running = self.services.server.start(engine.executable, self.profile, address)
        self.progress(Step("server", "server", "done", f"Ollama {running.version} at {running.base_url}"))
        return running

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


def refuse_drift(owned: process.Process) -> None:
    """A unit's settings change by installing it again, not by another server."""
    if systemd.around(owned.pid):
        user = " --user" if owned.environ.get("LLMCTL_SCOPE") == "user" else ""
        raise Refused(
            "the unit of the server has other settings than the profile",
            f"{'' if user else 'sudo '}llmctl install-service{user}",
            code="drift",
        )


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
