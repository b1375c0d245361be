"""The faults of scenarios.yaml. A fault is set up before the server comes up, or made happen to it afterwards.

`prepare` and `happen` hold them by name; a name may stand in both.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core.model import ModelRef
from llmctl.system.store import Store
from tests.conftest import StartOllama
from tests.doctor.conftest import Patient
from tests.guard.test_faults import Api, other_weights
from tests.parts import machine
from tests.parts.engine import InstalledEngine
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import NOTHING_FITS, RpcGpu

GIB = 1 << 30


@dataclass
class Scene:
    """One patient and what is around it. `comes_up` False: the scenario begins without a server."""

    patient: Patient
    engine: InstalledEngine
    standin: NvmlStandin
    rpc: Callable[[], RpcGpu]
    start_ollama: StartOllama
    small_disk: Callable[[int], Path]
    folder: Path
    starter: Path
    comes_up: bool = True
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    paused: list[int] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    bind: str = "127.0.0.1"

    @property
    def api(self) -> Api:
        return Api(self.patient.cli)

    @property
    def port(self) -> int:
        return int(Path(self.patient.profile).read_text().partition("port: ")[2].partition(",")[0])

    @property
    def store(self) -> Store:
        return Store(Path(self.patient.cli.environ["OLLAMA_MODELS"]))

    def pids(self, word: bytes) -> list[int]:
        return [pid for pid in self.patient.cli.owned() if word in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @property
    def server(self) -> int:
        return self.pids(b"\0serve")[0]

    @property
    def runner(self) -> int:
        return self.pids(b"llama-server\0")[0]

    def edit(self, before: str, after: str) -> None:
        path = Path(self.patient.profile)
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def run(self, *argv: str, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process of the scenario's, ended with it."""
        process = subprocess.Popen(
            argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )
        self.started.append(process)
        return process

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found

    def clean_up(self) -> None:
        for pid in self.paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for process in self.started:
            self.orphans += children(process.pid)
            process.kill()
            process.wait()
        for pid in self.orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


prepare: dict[str, Callable[[Scene], None]] = {}
happen: dict[str, Callable[[Scene], None]] = {}


def before_up(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    prepare[act.__name__] = act
    return act


def fault(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    happen[act.__name__] = act
    return act


# The engine, the profile, the environment


@before_up
def no_engine(scene: Scene) -> None:
    scene.comes_up = False
    del scene.patient.cli.environ["LLMCTL_ENGINE"]
    folders = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "ollama").exists()]
    scene.patient.environ |= {"PATH": ":".join(folders), "LLMCTL_ENGINES_DIR": str(scene.folder / "no-engines")}


@before_up
def llama_server_missing(scene: Scene) -> None:
    shutil.copytree(scene.engine.root, scene.folder / "engine", copy_function=os.link, symlinks=True)
    scene.patient.cli.environ["LLMCTL_ENGINE"] = str(scene.folder / "engine" / "bin" / "ollama")
    happen["llama_server_missing"] = lambda scene: (
        scene.folder / "engine" / "lib" / "ollama" / "llama-server"
    ).unlink()


@fault
def profile_with_a_wrong_key(scene: Scene) -> None:
    scene.edit("context:", "contxt:")


@before_up
def gpu_required(scene: Scene) -> None:
    scene.patient.cli.environ |= scene.rpc().environ
    scene.patient.environ |= scene.standin.environ
    scene.standin.set(ScriptedGpu())
    scene.edit("require: none", "require: full")


@before_up
def gpu_allowed(scene: Scene) -> None:
    scene.patient.cli.environ |= scene.rpc().environ
    scene.patient.environ |= scene.standin.environ
    scene.standin.set(ScriptedGpu())


@before_up
def cuda_visible_devices_of_no_card(scene: Scene) -> None:
    scene.patient.environ["CUDA_VISIBLE_DEVICES"] = "7"


@before_up
def model_on_the_cpu(scene: Scene) -> None:
    """It came up on the CPU, and then the profile asks for the GPU."""
    scene.edit("require: full", "require: none")
    scene.patient.cli.environ |= NOTHING_FITS
    happen["model_on_the_cpu"] = lambda scene: scene.edit("require: none", "require: partial")


@before_up
def host_without_a_port(scene: Scene) -> None:
    """The profile leaves the address to OLLAMA_HOST, which loses its port later."""
    port = scene.port
    scene.edit(f"host: 127.0.0.1, port: {port}, ", "")
    scene.patient.environ["OLLAMA_HOST"] = f"127.0.0.1:{port}"

    def later(scene: Scene) -> None:
        scene.patient.environ["OLLAMA_HOST"] = "http://127.0.0.1"

    happen["host_without_a_port"] = later


# A server that somebody else started, with settings of its own


def attached(scene: Scene) -> None:
    """`ollama serve` as somebody else starts it; llmctl comes to it."""
    port, home = machine.free_port(), scene.folder / "foreign"
    home.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OLLAMA_MODELS": str(scene.store.path),
        "OLLAMA_HOST": f"{scene.bind}:{port}",
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NO_CLOUD": "1",
        **scene.foreign,
    }
    scene.run(str(scene.engine.ollama), "serve", environ=environ)
    scene.until(lambda: listens(port))
    scene.edit(f"port: {scene.port}", f"port: {port}")


@before_up
def bound_to_every_address(scene: Scene) -> None:
    scene.bind = "0.0.0.0"
    scene.foreign.setdefault("OLLAMA_NO_CLOUD", "1")


@before_up
def cloud_on(scene: Scene) -> None:
    scene.foreign["OLLAMA_NO_CLOUD"] = "0"


@before_up
def flash_attention_off_in_words(scene: Scene) -> None:
    scene.foreign["OLLAMA_FLASH_ATTENTION"] = "off"
    scene.edit("context: 2048", "context: 2048, flash_attention: off")


# The server and the runner


@fault
def server_stopped(scene: Scene) -> None:
    pid = scene.server
    os.kill(pid, signal.SIGTERM)
    scene.until(lambda: pid not in scene.patient.cli.owned())
    scene.until(lambda: not scene.patient.cli.owned())


@fault
def server_killed(scene: Scene) -> None:
    scene.patient.cli.kill(scene.server)
    assert scene.runner


@fault
def server_stopped_by_a_signal(scene: Scene) -> None:
    scene.paused.append(scene.server)
    os.kill(scene.paused[-1], signal.SIGSTOP)


@fault
def runner_stopped_by_a_signal(scene: Scene) -> None:
    scene.paused.append(scene.runner)
    os.kill(scene.paused[-1], signal.SIGSTOP)


SILENT = "import socket, time; held = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"


@fault
def port_held_by_a_program(scene: Scene) -> None:
    scene.run(sys.executable, "-c", SILENT.format(port=scene.port))
    scene.until(lambda: listens(scene.port))


@fault
def port_held_by_a_web_server(scene: Scene) -> None:
    scene.run(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(scene.port))
    scene.until(lambda: listens(scene.port))


def listens(port: int) -> bool:
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


@fault
def orphan_of_another_server(scene: Scene) -> None:
    """A server that somebody else started was killed, and its runner lives on."""
    server = scene.start_ollama({"HOME": os.environ["HOME"]}, with_starter=True)
    server.post("/api/generate", {"model": "starter"})
    before = children(server.process.pid)
    server.process.kill()
    server.process.wait()
    scene.orphans += before
    assert before


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


@fault
def foreign_server_with_another_store(scene: Scene) -> None:
    scene.start_ollama({"HOME": os.environ["HOME"]}, with_starter=True)


# What clients do


@fault
def model_unloaded(scene: Scene) -> None:
    api = scene.api
    api.post("/api/generate", {"model": api.alias, "keep_alive": 0})
    scene.until(lambda: not api.loaded())


@fault
def another_model_loaded(scene: Scene) -> None:
    api = scene.api
    rival = other_weights(api, scene.starter)
    api.post("/api/generate", {"model": rival, "prompt": "x", "options": {"num_predict": 1}})


@fault
def clients_with_another_context(scene: Scene) -> None:
    api = scene.api
    for number in range(6):
        options = {"num_predict": 1, "num_ctx": 1024 if number % 2 else 512}
        api.post("/api/generate", {"model": api.alias, "prompt": "x", "raw": True, "options": options})


# The GPU


@fault
def driver_mismatch(scene: Scene) -> None:
    scene.standin.set(ScriptedGpu(), errors={"nvmlInitWithFlags": "LIB_RM_VERSION_MISMATCH"})


@fault
def driver_not_loaded(scene: Scene) -> None:
    scene.standin.set(errors={"nvmlInitWithFlags": "DRIVER_NOT_LOADED"})


@fault
def gpu_lost(scene: Scene) -> None:
    scene.standin.set(ScriptedGpu(errors={"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"}))


@fault
def memory_held_by_others(scene: Scene) -> None:
    other = scene.run("sleep", "600")
    held = 24 * GIB - (96 << 20)
    scene.standin.set(ScriptedGpu(total_bytes=24 * GIB, used_bytes=held, compute=[(other.pid, held)]))


@fault
def gpu_throttled(scene: Scene) -> None:
    # nvmlClocksThrottleReasonHwThermalSlowdown (nvml.h)
    scene.standin.set(ScriptedGpu(temperature=96, throttle=0x40))


@fault
def slow_answers(scene: Scene) -> None:
    """The last answers that this machine remembers were slow."""
    status = scene.patient("status", "--json").json["models"][0]
    path = scene.patient.state / "learnt.json"
    known: dict[str, Any] = {"schema": 1, "runtime": {}, "speed": {}}
    if path.exists():
        known = json.loads(path.read_text())
    for place in ("gpu", "partial", "cpu"):
        known["speed"][f"{status['weights_digest']}|{place}"] = [0.2] * 5
    path.write_text(json.dumps(known))


# The store


def alias_of(scene: Scene) -> ModelRef:
    return ModelRef.parse(scene.patient("list", "--json").json["models"][0]["alias"])


@fault
def blob_missing(scene: Scene) -> None:
    digest = scene.patient("list", "--json").json["models"][0]["weights_digest"]
    scene.store.blob(digest).unlink()


@fault
def manifest_damaged(scene: Scene) -> None:
    path = scene.store.manifest_path(alias_of(scene))
    content = path.read_bytes()
    # Its bytes are shared with the stores of other tests.
    path.unlink()
    path.write_bytes(content[:100])


@fault
def alias_of_other_weights(scene: Scene) -> None:
    api = scene.api
    rival = other_weights(api, scene.starter)
    api.post("/api/delete", {"model": api.alias}, method="DELETE")
    api.post("/api/copy", {"source": rival, "destination": api.alias})


@before_up
def disk_full(scene: Scene) -> None:
    disk = scene.small_disk(320 << 20)
    shutil.copytree(scene.store.path, disk / "models")
    scene.patient.cli.environ["OLLAMA_MODELS"] = str(disk / "models")

    def later(_: Scene) -> None:
        with suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))

    happen["disk_full"] = later


@fault
def partial_download_left(scene: Scene) -> None:
    part = scene.store.path / "blobs" / f"sha256-{'ab' * 32}-partial"
    with part.open("wb") as file:
        file.truncate(1 << 30)
