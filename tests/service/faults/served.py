"""The service in a container with its model resident: what is done to it, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.parts import machine, starter
from tests.parts.engine import InstalledEngine
from tests.parts.systemd import Container
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET, Service, rpc_server

# Everything that the guard waits for is counted in looks, so that ten times the looks make it ten times as fast.
INTERVAL_SECONDS = 0.5
DEADLINE_SECONDS = 150.0
POLL_SECONDS = 0.05
# What llmctl reads and writes while it serves, besides the store.
PLACES = ("/run/llmctl", "/var/lib/llmctl/state", "/var/lib/llmctl/models/.llmctl", "/etc/llmctl")
STORE = "/var/lib/llmctl/models"
RIVAL = "rival:latest"
# Where the container has the library of tests/service/faults/clock.py.
CLOCK = Path("/clock")

Test = TypeVar("Test", bound=Callable[..., None])
_T = TypeVar("_T")


def fault(*, what: str, how: str, happens: str, again: str, **arguments: Any) -> Callable[[Test], Test]:
    """One row of the section "Service" in docs/reliability.md, proved by the test below it.

    As in tests/faults; `again` is how long until the model is resident again, in looks of the guard and loads.
    """
    assert all((what, how, happens, again))

    def mark(test: Test) -> Test:
        test.__dict__["faults"] = [(what, arguments), *test.__dict__.get("faults", [])]
        return test

    return mark


@dataclass
class Served:
    """One installed service. `gpu_port` is where its stand-in GPU listens, None where no GPU is required."""

    service: Service
    engine: InstalledEngine
    folder: Path
    gpu_port: int | None = None
    gpu: subprocess.Popen[bytes] | None = None
    _alias: str = ""
    _added: set[str] = field(default_factory=set)

    @property
    def container(self) -> Container:
        return self.service.container

    @property
    def alias(self) -> str:
        return self._alias

    def llmctl(self, *arguments: str) -> Any:
        return self.service.llmctl(*arguments)

    # How it comes to be

    def bring_up(self) -> None:
        """Install, pin, load and prove; from then on the guard keeps it."""
        if self.gpu_port is not None:
            self.plug_in()
            self.service.add_to_engine("[Service]", f"Environment=LLAMA_ARG_RPC=127.0.0.1:{self.gpu_port}")
        self.add(GUARD_UNIT, "interval", *guard_command(INTERVAL_SECONDS))
        require = "none" if self.gpu_port is None else "full"
        done = self.service.install(profile=self.service.profile(require=require))
        assert done.code == 0, done.err
        up = self.llmctl("up", "--json")
        assert up.code == 0, up.err
        self._alias = up.json["models"][0]["alias"]
        self.until("the guard to be ready", lambda: self.ready)

    def plug_in(self) -> None:
        """The stand-in GPU is there."""
        assert self.gpu_port
        self.gpu = rpc_server(self.engine.rpc_server, self.gpu_port, self.folder)
        self.until("the stand-in GPU", lambda: listens(self.gpu_port))

    def pull_out(self) -> None:
        if self.gpu is not None:
            self.gpu.kill()
            self.gpu.wait()
            self.gpu = None

    def add(self, unit: str, name: str, *lines: str) -> None:
        """A drop-in, as a person adds one; it holds from the unit's next start."""
        self.container.write(f"/etc/systemd/system/{unit}.d/{name}.conf", "\n".join(["[Service]", *lines]) + "\n")
        self.container.run("systemctl", "daemon-reload")

    def take_away(self, unit: str, name: str) -> None:
        self.container.run("rm", "-f", f"/etc/systemd/system/{unit}.d/{name}.conf")
        self.container.run("systemctl", "daemon-reload")

    def restart_guard(self) -> None:
        """With the drop-ins that there are now, and nothing remembered of earlier faults."""
        self.container.run("systemctl", "reset-failed", GUARD_UNIT, check=False)
        self.container.run("systemctl", "--no-block", "restart", GUARD_UNIT)

    def calm(self) -> None:
        """As after a long time without a fault: nothing counts any more, and everything is as it should be."""
        self.forget_starts()
        self.container.run("systemctl", "--no-block", "start", TARGET, ENGINE_UNIT)
        self.restart_guard()
        self.until("it to be resident before the test", lambda: self.ready and self.resident)

    def forget_starts(self) -> None:
        self.container.run("rm", "-f", "/run/llmctl/starts.json")
        self.container.run("systemctl", "reset-failed")

    # What is there

    @property
    def inside(self) -> Path:
        """The container's files, as this machine sees them."""
        return Path("/proc") / str(self.container.init) / "root"

    @property
    def note(self) -> dict[str, Any]:
        """guard.json; empty while there is none."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.inside / "run/llmctl/guard.json").read_text()))
        return {}

    @property
    def ready(self) -> bool:
        """The unit is active, and its last look found the model resident and proved."""
        (pid, *_) = self.pids(GUARD_UNIT) or [0]
        note = self.note
        return note.get("ready") is True and note["pid"] == pid and self.guard["ActiveState"] == "active"

    @property
    def resident(self) -> bool:
        return bool(self.llmctl("status", "--quiet").code == 0)

    @property
    def guard(self) -> dict[str, str]:
        return self.container.unit(GUARD_UNIT)

    @property
    def words(self) -> str:
        """The guard's STATUS line; empty before its first."""
        return self.guard.get("StatusText", "")

    def pids(self, unit: str, program: str | None = None) -> list[int]:
        return self.container.pids(unit, program)

    @property
    def server(self) -> int:
        (pid,) = self.pids(ENGINE_UNIT, "ollama")
        return pid

    @property
    def runners(self) -> list[int]:
        return self.pids(ENGINE_UNIT, "llama-server")

    @property
    def runner(self) -> int:
        (pid,) = self.runners
        return pid

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """What the guard wrote into the journal; `since` is how many entries there were before."""
        entries = self.container.journal(GUARD_UNIT)
        return [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "llmctl-guard"][since:]

    def steps(self, since: int = 0) -> list[tuple[str, str]]:
        """What the guard did, with its reasons."""
        told = [(entry.get("REASON", ""), entry.get("ACTION", "none")) for entry in self.events(since)]
        return [(reason, action) for reason, action in told if action != "none"]

    def show(self, lines: int = 150) -> None:
        """For the output of a test that fails."""
        plain = "--grep=^(?!.GIN|print_info|slot |llama_model_loader)"
        chosen = ["-u", ENGINE_UNIT, "-u", GUARD_UNIT, f"--lines={lines}", plain]
        shown = self.container.run("journalctl", "--no-pager", "--output=short-precise", *chosen, check=False)
        print(f"--- journal\n{shown.stdout}--- note\n{self.note}\n--- status\n{self.llmctl('status').out}")

    # What clients do

    def api(self, path: str, body: Any = None, method: str | None = None, seconds: float = 120) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=seconds)
        try:
            data = None if body is None else json.dumps({"stream": False} | body).encode()
            connection.request(method or ("GET" if data is None else "POST"), path, body=data)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return json.loads(content) if content else None
        finally:
            connection.close()

    def loaded(self) -> list[str]:
        return [model["name"] for model in self.api("/api/ps")["models"]]

    def generate(self, model: str | None = None, tokens: int = 1, seconds: float = 120, **more: Any) -> Any:
        options = {"num_predict": tokens, **more.pop("options", {})}
        body = {"model": model or self.alias, "prompt": "The", "options": options, **more}
        return self.api("/api/generate", body, seconds=seconds)

    def make_rival(self) -> str:
        """A model of other weights: one byte in its last tensor."""
        if RIVAL not in {model["name"] for model in self.api("/api/tags")["models"]}:
            content = bytearray(starter.path().read_bytes())
            content[-1] ^= 1
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=240)
            connection.request("POST", f"/api/blobs/{digest}", bytes(content))
            assert connection.getresponse().status == 201
            connection.close()
            made = {"model": RIVAL, "files": {"model.gguf": digest}, "template": "{{ .Prompt }}"}
            self.api("/api/create", made, seconds=240)
        return RIVAL

    # What must hold

    def until(self, what: str, condition: Callable[[], _T], seconds: float = DEADLINE_SECONDS) -> _T:
        return self.container.wait(condition, seconds, f"{what}; the guard says: {self.note}")

    def says(self, *phrases: str) -> None:
        """The unit's STATUS has these words, soon: what systemd drops, the guard says again at its next look."""
        self.until(f"a STATUS with {phrases}", lambda: all(phrase in self.words for phrase in phrases))

    @contextmanager
    def away(self, what: str, changed: Callable[[], bool]) -> Iterator[None]:
        """Around a fault: waits until its effect has `changed` something and the model is resident and proved again,
        says how long that took, and looks at what is left."""
        began = time.monotonic()
        yield
        self.until(f"{what} to show", changed)
        self.until(f"the model after {what}", lambda: self.ready and self.resident)
        print(f"until resident again after {what}: {time.monotonic() - began:.1f} s")
        self.sound()

    def sound(self, *, failed: frozenset[str] = frozenset()) -> None:
        """Resident, one runner below one server, nothing half-written, units as they should be, true words."""
        # Its own probe is an answer too.
        self.until("the guard to be settled", lambda: self.ready and "is resident" in self.words)
        assert not self.note["degraded"]
        assert self.loaded() == [self.alias]
        self.until("note and STATUS to say the same", lambda: self.note["words"] == self.words, 10)
        assert "resident" in self.llmctl("guard", "--once").out
        self.nothing_left_over(runners=1)
        self.units({ENGINE_UNIT: "active", GUARD_UNIT: "active", TARGET: "active"}, failed)

    def nothing_left_over(self, *, runners: int) -> None:
        """No orphan, and no half of a file."""
        found = self.processes("llama-server")
        assert len(found) == runners, found
        mine = {pid: parent for pid, parent in found.items() if pid in self.runners}
        assert mine == found, "a runner outside of its unit"
        assert set(found.values()) <= {self.server}, "a runner without its server"
        for place in PLACES:
            self.whole(place)
        partial = self.container.run("find", f"{STORE}/blobs", "-name", "*-partial*", "-o", "-name", "*.tmp").stdout
        assert partial == ""

    def whole(self, place: str) -> None:
        for path in self.container.run("find", place, "-type", "f", check=False).stdout.split("\n"):
            # A file that was written and renamed meanwhile is no half of one.
            if path.endswith(".tmp"):
                self.until(f"{path} to go", lambda path=path: not self.exists(path), 10)  # type: ignore[misc]
            elif path.endswith(".json"):
                self.until(f"{path} to be whole", lambda path=path: self.parses(path), 10)  # type: ignore[misc]

    def exists(self, path: str) -> bool:
        return self.container.run("test", "-e", path, check=False).returncode == 0

    def parses(self, path: str) -> bool:
        said = self.container.run("cat", path, check=False)
        with suppress(ValueError):
            return said.returncode != 0 or json.loads(said.stdout) is not None
        return False

    def processes(self, program: str) -> dict[int, int]:
        """Every process of the container with that name, and its parent."""
        lines = self.container.run("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null", check=False).stdout.splitlines()
        found = {}
        for line in lines:
            pid, name, rest = line.partition(" (")[0], line.partition("(")[2].rpartition(")")[0], line.rpartition(")")
            state, parent = rest[2].split()[:2]
            if name == program and state not in {"Z", "X"}:
                found[int(pid)] = int(parent)
        return found

    def units(self, states: Mapping[str, str], failed: frozenset[str] = frozenset()) -> None:
        assert {name: self.container.unit(name)["ActiveState"] for name in states} == dict(states)
        shown = self.container.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
        assert {line.split()[0] for line in shown.splitlines()} <= failed


def guard_command(interval_seconds: float) -> tuple[str, str]:
    return "ExecStart=", f"ExecStart=/opt/llmctl/bin/llmctl guard --interval {interval_seconds}"


def listens(port: int | None) -> bool:
    """Looked at in the kernel's table: the stand-in GPU serves one client at a time."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


@contextmanager
def serving(container: Container, engine: InstalledEngine, folder: Path, *, gpu: bool) -> Iterator[Served]:
    """The service in `container`, resident; `gpu`: on a stand-in that it requires. `folder` has what is shared."""
    port = machine.free_port() if gpu else None
    served = Served(Service(container, machine.free_port()), engine, folder, port)
    try:
        served.bring_up()
        yield served
    except BaseException:
        served.show()
        raise
    finally:
        served.pull_out()
