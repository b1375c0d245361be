"""One Ollama server: the one that llmctl started (owned), or one that was there already (attached)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.client import Client
from llmctl.core import serving, unit
from llmctl.core.address import Address, choose_address, parse_host
from llmctl.core.server_state import Owner, ServerState, state_of
from llmctl.errors import EngineError, NotFound, PortInUse, ServerNotRunning, ServerUnreachable
from llmctl.system import files, process, systemd
from llmctl.system.log_file import rotate, tail
from llmctl.system.paths import SYSTEM

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.system.paths import Paths

# GPU discovery may take 30 s for each library folder before the API answers (facts read in discover/runner.go).
START_SECONDS = 90.0
STOP_SECONDS = 15.0
FIRST_ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 4 << 20
JOURNAL_LINES = 5000
# What a line of the engine has on average.
LINE_BYTES = 128


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    base_url: str
    owner: Owner
    version: str
    pid: int | None
    settings: str | None = None
    store: str | None = None


class Server:
    """Start, find and stop. Everything that a killed llmctl may have left is found again by its marker."""

    def __init__(self, paths: Paths, environ: Mapping[str, str]) -> None:
        self.paths = paths
        self.environ = environ
        self.owner = str(paths.state)

    @cached_property
    def service(self) -> systemd.Installed | None:
        """The units that own the server of these folders, where they are installed."""
        return systemd.installed(self.paths, self.environ)

    def is_of_service(self, profile: Profile) -> bool:
        """Whether the units were made of this profile. Then they say where its server is."""
        return self.service is not None and self.service.profile == profile.reference

    def state(self) -> ServerState | None:
        """What the last `up` made true, unless `down` ended it since."""
        found = self._recorded()
        return None if found is None or found.stopped else found

    def last_profile(self) -> str | None:
        """The profile of the last `up`, also after a `down`."""
        found = self._recorded()
        return found.profile if found else None

    def _recorded(self) -> ServerState | None:
        """The recorded state; None when there is none or it cannot be read as one."""
        try:
            return state_of(json.loads(self.paths.state_file.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def record(self, state: ServerState) -> None:
        text = json.dumps(asdict(state), indent=1)
        # Whoever may ask the server of the whole machine may see its state.
        mode = 0o644 if self.paths == SYSTEM else 0o600
        files.atomic_write(self.paths.state_file, text.encode(), mode)

    def forget(self) -> None:
        """Record that nothing is up any more."""
        found = self._recorded()
        if found is not None and not found.stopped:
            self.record(replace(found, models=(), stopped=True))

    def processes(self) -> list[process.Process]:
        """Living processes that llmctl started under this state folder: servers and their runners."""
        return process.marked(self.owner)

    def loose(self) -> list[process.Process]:
        """Those of `processes` that no unit of systemd owns."""
        return [found for found in self.processes() if not systemd.around(found.pid)]

    def owned(self) -> process.Process | None:
        """The `ollama serve` that llmctl started, also when llmctl was killed right after, or that its unit runs."""
        mine = next((found for found in self.processes() if "serve" in found.argv[1:]), None)
        return mine or self._main_process()

    def _main_process(self) -> process.Process | None:
        """The unit's server, where its environment is another user's to read: its files say the same."""
        service = self.service
        if service is None or not service.engine or os.geteuid() == 0:
            return None
        for found in process.having("cmdline", "serve"):
            if "serve" in found.argv[1:] and systemd.around_of(found.pid, service.scope):
                return replace(found, environ=service.environment)
        return None

    def address(self, profile: Profile) -> Address:
        """Where the profile's server is: one's own free port for a private profile."""
        given = (profile.server.host, profile.server.port) if profile.server.address_given else None
        if self.service is not None and self.is_of_service(profile):
            return parse_host(self.service.environment["OLLAMA_HOST"], "OLLAMA_HOST")
        if profile.private and given is None:
            return self._private_address(profile)
        return choose_address(self.environ, given)

    def _private_address(self, profile: Profile) -> Address:
        owned = self.owned()
        if owned is not None and (port := port_of(owned)) is not None:
            return Address(profile.server.host, port, "running server")
        return Address(profile.server.host, process.free_port(profile.server.host), "free port")

    def store(self, profile: Profile) -> Path:
        """The model folder for an owned server (product: whose server, whose store)."""
        if self.service is not None and self.service.engine and self.is_of_service(profile):
            return Path(self.service.environment["OLLAMA_MODELS"])
        if profile.private:
            return self.paths.data / profile.name / "models"
        return default_store(self.environ, self.paths.models)

    def home(self, profile: Profile) -> Path:
        """HOME for the engine, which panics without one and keeps its key pair there."""
        return self.paths.data / profile.name / "home" if profile.private else Path("~").expanduser()

    def find(self, address: Address) -> Running | None:
        """The server at an address, or None. Raises PortInUse when what listens there is no Ollama."""
        owned = self.owned()
        try:
            version = answering(Client(address.url, answer_seconds=FIRST_ANSWER_SECONDS))
        except ServerUnreachable:
            if not address.local or (owned is not None and port_of(owned) == address.port):
                raise
            raise taken(address) from None
        if version is None:
            return None
        if owned is not None and port_of(owned) == address.port:
            environ = owned.environ
            store = environ.get("OLLAMA_MODELS")
            owner: Owner = "systemd" if systemd.around(owned.pid) else "llmctl"
            return Running(address.url, owner, version, owned.pid, environ.get(serving.SETTINGS), store)
        other = process.server_at(address.port) if address.local else None
        pid = other.pid if other else None
        return Running(address.url, "foreign", version, pid, None, store_of(other) if other else None)

    def start(self, executable: Path, profile: Profile, address: Address) -> Running:
        """Start `ollama serve` detached and wait until it answers. Raises PortInUse or EngineError."""
        if process.port_taken(address.host, address.port):
            raise taken(address)
        store, home = self.store(profile), self.home(profile)
        for folder in (store, home, self.paths.logs):
            files.make_folder(folder)
        rotate(self.paths.server_log)
        environ = serving.server_environment(
            profile,
            self.environ,
            address=address.url.removeprefix("http://"),
            store=str(store),
            home=str(home),
            owner=self.owner,
        )
        pid = process.spawn([str(executable), "serve"], environ, self.paths.server_log)
        version = self._wait(pid, Client(address.url, answer_seconds=2.0))
        return Running(address.url, "llmctl", version, pid, serving.fingerprint(profile), str(store))

    def _wait(self, pid: int, client: Client) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.read(pid) is None:
                last = (tail(self.paths.server_log, 2000).strip().splitlines() or ["no output"])[-1]
                raise EngineError(f"the server ended as it started: {last[:300]}", "llmctl logs")
            try:
                version = answering(client)
            except ServerUnreachable:
                # The socket accepts before GPU discovery ends, and HTTP waits for it.
                version = None
            if version is not None:
                return version
            time.sleep(POLL_SECONDS)
        raise ServerUnreachable(f"the server did not answer within {START_SECONDS:.0f} s", "llmctl logs")

    def stop(self) -> list[int]:
        """End the owned server and every runner of it, orphans too. The pids that were ended. Units are let be."""
        ended = []
        # The server first: it kills its own runners. What is left after it are orphans.
        while found := self.loose():
            server = next((one for one in found if "serve" in one.argv[1:]), found[0])
            process.stop(server.pid, STOP_SECONDS)
            ended.append(server.pid)
        return ended

    def log(self, limit_bytes: int = LOG_TAIL_BYTES) -> str:
        """The end of the owned server's log, which is the journal where a unit owns it."""
        if self.service is not None and self.service.engine:
            lines = min(JOURNAL_LINES, limit_bytes // LINE_BYTES)
            return "\n".join(systemd.Manager(self.service.scope, self.environ).journal(unit.ENGINE, lines))
        return tail(self.paths.server_log, limit_bytes)


def answering(client: Client) -> str | None:
    """The version that a server says, or None when none listens or it is not ready yet."""
    try:
        version = client.version()
    except ServerUnreachable:
        raise
    except ServerNotRunning:
        return None
    except (EngineError, NotFound):
        # Another program's own page for what it does not know.
        version = ""
    if not version:
        raise ServerUnreachable(f"what answers at {client.base_url} is not Ollama")
    return version


def taken(address: Address) -> PortInUse:
    holder = process.listener(address.port)
    if holder is None:
        who = "another program, which this user may not see"
    else:
        who = f"pid {holder.pid}: {' '.join(holder.argv)[:200]}"
    return PortInUse(
        f"port {address.port} on {address.host} is taken by {who}",
        "set server.port in the profile to a free port, or end that program",
    )


def default_store(environ: Mapping[str, str], own: Path) -> Path:
    """Where Ollama keeps its models: OLLAMA_MODELS, else the user's usual folder where it is there, else `own`."""
    if given := serving.as_read(environ.get("OLLAMA_MODELS", "")):
        return Path(given).expanduser().absolute()
    usual = Path(environ.get("HOME", "~")).expanduser() / ".ollama" / "models"
    return usual if usual.is_dir() else own


def store_of(server: process.Process) -> str | None:
    """A foreign server's model folder, where its environment can be read."""
    home = server.environ.get("HOME")
    return serving.as_read(server.environ.get("OLLAMA_MODELS", "")) or (f"{home}/.ollama/models" if home else None)


def port_of(server: process.Process) -> int | None:
    port = server.environ.get("OLLAMA_HOST", "").rpartition(":")[2]
    return int(port) if port.isdigit() else None
