"""The service of the whole machine: a user, folders, an installation and an engine of its own, then the units."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core import serving, unit
from llmctl.core.address import parse_host
from llmctl.core.engine import Rule, objection
from llmctl.core.progress import Consent, Progress
from llmctl.errors import LlmctlError, PortInUse, Refused, UsageError
from llmctl.library import lock_file, store_copy
from llmctl.system import files, installation, process, systemd
from llmctl.system.paths import SYSTEM
from llmctl.system.store import Store
from llmctl.system.systemd import SYSTEM_UNITS, Manager
from llmctl.workflows.foreign_unit import collision, foreign_environment, in_force
from llmctl.workflows.install import (
    CREDENTIALS,
    OPT,
    PROFILE,
    SYSUSERS,
    Action,
    Change,
    ServiceResult,
    changing,
    credentials,
    enable,
    perform,
    remove,
    run,
    system_address,
    system_site,
    unit_files,
    write,
)
from llmctl.workflows.store import usual_places

if TYPE_CHECKING:
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile
    from llmctl.engines import Engines
    from llmctl.server import Server

Models = Literal["move", "copy"]
LOCK = PROFILE.with_suffix(".lock")
FOLDERS = (SYSTEM.models, SYSTEM.state, SYSTEM.data / "home")
OLLAMA_PORT = "127.0.0.1:11434"


@dataclass(frozen=True)
class Install:
    """One run of `install-service` for the system. `server`, `engines` and `lock_path` are those of the person who
    runs it, where engines, models and pins are looked for."""

    profile: Profile
    lock_path: Path
    server: Server
    engines: Engines
    environ: Mapping[str, str]
    progress: Progress
    consent: Consent
    adopt: bool = False
    uvm: bool = False
    models: Models | None = None
    store: Path | None = None
    dry_run: bool = False

    def run(self) -> ServiceResult:
        manager = Manager("system", self.environ)
        problems = tuple(self.problems(manager))
        if problems and not self.dry_run:
            raise problems[0]
        if not self.dry_run:
            # The service's user reads nearly all of it, whatever mask root has.
            os.umask(0o022)
        site = self.site(manager)
        units = unit_files(site, self.profile, SYSTEM_UNITS)
        steps = perform(self.actions(site, units, manager), self.progress, self.dry_run)
        refused = tuple(f"it would be refused: {problem.message}; {problem.hint}" for problem in problems)
        notes = (*refused, *self.missing())
        changed = any(step.due for step in steps)
        return ServiceResult("system", self.dry_run, changed, self.adopt, str(PROFILE), steps, notes)

    def problems(self, manager: Manager) -> Iterator[LlmctlError]:
        if os.geteuid() != 0:
            yield Refused(
                "the service of the whole machine is root's to install",
                "sudo llmctl install-service, or for your own user: llmctl install-service --user",
                code="not_root",
            )
        if not systemd.is_there():
            yield Refused("systemd does not run this machine", "llmctl up", code="no_systemd")
            return
        foreign = manager.show(unit.FOREIGN)
        if self.adopt and foreign.load != "loaded":
            yield UsageError(f"there is no {unit.FOREIGN} to adopt", "sudo llmctl install-service")
        if not self.adopt and foreign.load == "loaded" and in_force(foreign):
            yield collision()
        if not self.adopt:
            yield from self.port_problem()
        yield from self.source_problems()
        if problem := no_source():
            yield problem

    def port_problem(self) -> Iterator[LlmctlError]:
        address = parse_host(system_address(self.profile), "server")
        if not process.port_taken(address.host, address.port):
            return
        holder = process.listener(address.port)
        if holder is not None and systemd.around(holder.pid):
            return
        who = f"pid {holder.pid}: {' '.join(holder.argv)[:200]}" if holder else "another program"
        mine = holder is not None and serving.MARKER in holder.environ
        hint = "llmctl down" if mine else "end that program, or set server.port in the profile to a free port"
        yield PortInUse(f"port {address.port} on {address.host} is taken by {who}", hint)

    def source_problems(self) -> Iterator[LlmctlError]:
        """A model's file that the profile names beside itself would not be found from /etc."""
        text = self.profile_text()
        for model in self.profile.models:
            if model.source not in {"registry", "starter"} and model.source not in text:
                yield UsageError(
                    f"{self.profile.path}: the source of {model.name} is not an absolute path, and /etc is elsewhere",
                    f"write it as {model.source}",
                )

    def site(self, manager: Manager) -> unit.Site:
        if self.adopt:
            return system_site(foreign_environment(manager).get("OLLAMA_HOST") or OLLAMA_PORT, engine=False)
        return system_site(system_address(self.profile), uvm=self.uvm)

    def actions(self, site: unit.Site, units: tuple[Action, ...], manager: Manager) -> Iterator[Action]:
        anew = no_source() is not None or not installation.is_current(installation.source(), OPT)
        words = f"this llmctl with what it needs to {OPT}"
        yield Action(Change("copy", words, None, anew), lambda: installation.install(installation.source(), OPT))
        users = write(SYSUSERS, unit.sysusers())
        yield users
        argv = ("systemd-sysusers", str(SYSUSERS))
        yield run(argv, partial(ran, argv, manager), users.change.due or not user_exists())
        yield from (folder(path) for path in FOLDERS)
        yield from self.settings()
        if self.adopt:
            yield from self.adoption(manager)
        else:
            yield from self.engine()
            yield from self.imports()
        yield from units
        yield from self.unwanted(site, manager)
        yield from enable(manager, units, SYSTEM_UNITS, site, anew)

    def unwanted(self, site: unit.Site, manager: Manager) -> Iterator[Action]:
        """Units of an earlier installation that this one does not have."""
        wanted = unit.units(site, self.profile)
        for name in unit.ALL_UNITS:
            if name not in wanted and systemd.own_text(SYSTEM_UNITS / name) is not None:
                yield changing(manager, "stop", name)
                yield remove(SYSTEM_UNITS / name)

    def settings(self) -> Iterator[Action]:
        """The profile and its pins. What a person wrote there is replaced only when another was named and agreed to."""
        text = self.profile_text()
        replaced = PROFILE.exists() and PROFILE.read_text() != text
        if replaced and not self.dry_run:
            self.consent(f"{PROFILE} is another profile and will be replaced; the old one stays as {PROFILE}.before.")
        if replaced:
            yield write(PROFILE.with_name(f"{PROFILE.name}.before"), PROFILE.read_text())
        yield write(PROFILE, text)
        known = self.lock_path.exists() and self.lock_path != LOCK
        if known and (replaced or not LOCK.exists()):
            yield write(LOCK, self.lock_path.read_text())
        yield from credentials(SYSTEM.config / CREDENTIALS, self.environ)

    def profile_text(self) -> str:
        assert self.profile.path is not None
        return Path(self.profile.path).read_text(encoding="utf-8")

    def engine(self) -> Iterator[Action]:
        """One that will do, copied from where it is, or got."""
        from llmctl.engines import Engines

        own = Engines(SYSTEM, {**self.environ, "PATH": "", "LLMCTL_ENGINE": ""})
        rule = Rule(self.profile.engine.version, cpu_only_allowed=self.profile.gpu.require == "none")
        chosen = own.store.current()
        if chosen is not None and objection(chosen, rule) is None:
            yield Action(Change("copy", f"Ollama {chosen.version} in {chosen.prefix}", None, False), lambda: None)
            return
        there = self.engines.search(rule).engine
        if there is not None:
            from llmctl.engines.copied import copy

            what = f"Ollama {there.version} from {there.prefix} to {SYSTEM.engines}"
            yield Action(Change("copy", what, None, True), lambda: discard(copy(there, own.store)))
            return
        version = self.profile.engine.version

        def get() -> None:
            cuda = False if rule.cpu_only_allowed else None
            made = own.install(version, None, cuda, self.progress, consent=self.consent)
            own.store.choose(made.name)

        yield run(("llmctl", "engine", "install", *([version] if version else [])), get)

    def imports(self) -> Iterator[Action]:
        """The pinned models out of the store of the person who installs."""
        if self.models is None:
            return
        weights = frozenset(pin.weights_digest for pin in self.lock().models)
        origin = self.origin(weights)
        if origin is None:
            return
        found = store_copy.having(origin, weights)
        target = Store(SYSTEM.models)
        due = any(target.manifest(one.ref) != one.content for one in found) or self.models == "move"
        if self.models == "move" and not self.dry_run:
            names = ", ".join(str(one.ref) for one in found)
            self.consent(f"{names} will be deleted in {origin.path} after the copy.")
        words = f"{', '.join(str(one.ref) for one in found)} from {origin.path} to {SYSTEM.models}"
        bring = partial(store_copy.bring, origin, target, found, move=self.models == "move", progress=self.progress)
        yield Action(Change("copy", words, None, due), lambda: discard(bring()))

    def origin(self, weights: frozenset[str]) -> Store | None:
        """The first store here that has one of them."""
        usual = (self.server.store(self.profile), *usual_places(self.server))
        for path in [self.store] if self.store else usual:
            if path != SYSTEM.models and path.is_dir() and store_copy.having(Store(path), weights):
                return Store(path)
        if self.store:
            raise Refused(f"{self.store} has none of the pinned models", f"llmctl list --store {self.store}")
        return None

    def lock(self) -> Lock:
        return lock_file.read(LOCK if LOCK.exists() else self.lock_path)

    def missing(self) -> tuple[str, ...]:
        """Models of the profile that the service cannot load yet, with the command that gets them."""
        if self.adopt or self.dry_run:
            return ()
        store, lock = Store(SYSTEM.models), self.lock()
        pins = {model.name: lock.pin(model.name) for model in self.profile.models}
        absent = sorted(
            name
            for name, pin in pins.items()
            if pin is None or not all(store.blob(blob.digest).exists() for blob in pin.blobs)
        )
        return (f"not in its store yet: {', '.join(absent)}; get it: sudo llmctl up",) if absent else ()

    def adoption(self, manager: Manager) -> Iterator[Action]:
        """A drop-in with what Ollama's own unit lacks; its values count as missing, so that twice gives the same."""
        missing = serving.lacks(self.profile, foreign_environment(manager) or {"": ""}, ())
        path = SYSTEM_UNITS / f"{unit.FOREIGN}.d" / unit.DROP_IN
        drop_in = write(path, unit.adoption(missing))
        if not missing:
            return
        if drop_in.change.due and not self.dry_run:
            self.consent(f"{unit.FOREIGN} will be restarted, which unloads its models for a while.")
        yield drop_in
        yield changing(manager, "daemon-reload", due=drop_in.change.due)
        yield changing(manager, "restart", unit.FOREIGN, due=drop_in.change.due)


def no_source() -> LlmctlError | None:
    """Why the running llmctl cannot be copied."""
    try:
        installation.source()
    except LlmctlError as error:
        return error
    return None


def folder(path: Path) -> Action:
    """A folder of the service's user, below one of root's: nobody else may put another in its place."""

    def act() -> None:
        with files.translated("make", path):
            path.mkdir(0o755, parents=True, exist_ok=True)
            path.chmod(0o755)
            shutil.chown(path, unit.USER, unit.USER)

    return Action(Change("write", f"{path}/", None, not path.is_dir()), act)


def user_exists() -> bool:
    import pwd

    try:
        pwd.getpwnam(unit.USER)
    except KeyError:
        return False
    return True


def ran(argv: tuple[str, ...], manager: Manager) -> None:
    done = systemd.run(argv, manager.environ, systemd.CHANGE_SECONDS)
    if done.status != 0:
        raise LlmctlError(f"`{' '.join(argv)}` failed: {done.text[-300:]}", code="command_failed")


def discard(_: object) -> None:
    """An action gives nothing back."""
