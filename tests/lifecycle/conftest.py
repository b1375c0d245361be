"""llmctl as its user runs it: a subprocess, a profile of one's own, the real engine and the real starter model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts import machine
from tests.parts.engine import InstalledEngine

PROFILE = """\
schema: 1
server: {{host: 127.0.0.1, port: {port}, context: {context}}}
models:
  - name: starter
    source: {source}
gpu: {{require: {require}}}
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.out or self.err.splitlines()[-1])["error"]


class Llmctl:
    """Runs verbs in the test's own HOME; `environ` is added to every run."""

    def __init__(self, engine: InstalledEngine, folder: Path) -> None:
        self.environ: dict[str, str] = {"LLMCTL_ENGINE": str(engine.ollama)}
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "llmctl", *arguments]

    def __call__(self, *arguments: str, environ: Mapping[str, str] | None = None, stdin: str = "") -> Done:
        done = subprocess.run(
            self.command(*arguments),
            env={**os.environ, **self.environ, **(environ or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def profile(self, source: Path, *, port: int | None = None, require: str = "none", context: int = 2048) -> str:
        path = self.folder / "my.yaml"
        text = PROFILE.format(port=port or machine.free_port(), source=source, require=require, context=context)
        path.write_text(text)
        return str(path)

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until the kernel has ended it."""
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while pid in self.owned():
            assert time.monotonic() < deadline, f"pid {pid} does not end"
            time.sleep(0.02)

    def of_program(self, word: bytes) -> int:
        """The one owned process with this in its command line: numbers begin anew, so none is the first or the last."""
        (found,) = (pid for pid in self.owned() if word in Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    @property
    def server(self) -> int:
        return self.of_program(b"\0serve")

    @property
    def runner(self) -> int:
        return self.of_program(b"llama-server\0")

    def owned(self) -> list[int]:
        """Processes that carry this HOME's state folder as their owner."""
        marker = f"LLMCTL_OWNER={Path(os.environ['XDG_STATE_HOME']) / 'llmctl'}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if marker in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)


@pytest.fixture
def llmctl(engine: InstalledEngine, tmp_path: Path) -> Iterator[Llmctl]:
    """Mark: `real("ollama")`. What is still up afterwards is taken down, so that a failing test leaves no process."""
    cli = Llmctl(engine, tmp_path)
    yield cli
    cli("down")
    for pid in cli.owned():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def prepared(engine: InstalledEngine, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a lock as the first `up` leaves them, made once per worker by llmctl itself."""
    folder = tmp_path_factory.mktemp("prepared")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_MODELS": str(folder / "models"),
        "LLMCTL_ENGINE": str(engine.ollama),
    }
    cli = Llmctl(engine, folder)
    profile = cli.profile(starter_gguf)
    for verb in (["up", profile, "--yes"], ["down"]):
        done = subprocess.run(cli.command(*verb), env=environ, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def ready(llmctl: Llmctl, prepared: Path, starter_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile whose model is pinned and in its store already; the path of the profile."""
    store = llmctl.folder / "models"
    shutil.copytree(prepared / "models", store, copy_function=os.link)
    shutil.copy(prepared / "my.lock", llmctl.folder / "my.lock")
    llmctl.environ["OLLAMA_MODELS"] = str(store)
    return llmctl.profile(starter_gguf)
