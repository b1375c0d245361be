"""A real `ollama serve` on a free port with its own model folder, and the store that holds the starter model."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from tests.parts import machine, starter
from tests.parts.engine import InstalledEngine

STARTER = "starter:latest"
_START_DEADLINE_SECONDS = 90.0


@dataclass
class OllamaServer:
    port: int
    models: Path
    home: Path
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One plain exchange that uses nothing of llmctl."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        try:
            connection.request(method, path, body=data)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path)[1])

    def post(self, path: str, body: Any) -> Any:
        """The answer to a POST with `stream: false`; anything but 200 is an error here."""
        status, answer = self.request("POST", path, {"stream": False} | body)
        assert status == 200, f"POST {path}: {status} {answer.decode(errors='replace')}"
        return json.loads(answer) if answer else None

    def create(self, name: str, gguf: Path, *, template: str = "{{ .Prompt }}", context: int = 2048) -> None:
        """Put a GGUF file into the store under `name`, as `ollama create` does."""
        with gguf.open("rb") as file:
            digest = "sha256:" + hashlib.sha256(file.read()).hexdigest()
        self.request("POST", f"/api/blobs/{digest}", gguf.read_bytes())
        parameters = {"num_ctx": context}
        self.post(
            "/api/create",
            {"model": name, "files": {gguf.name: digest}, "template": template, "parameters": parameters},
        )

    def ps(self, name: str = STARTER) -> dict[str, Any]:
        """The line of /api/ps for `name`."""
        models: list[dict[str, Any]] = self.get("/api/ps")["models"]
        return next(model for model in models if model["name"] == name)

    def stop(self) -> None:
        """End the server and its runners, whatever state they are in."""
        with suppress(psutil.NoSuchProcess):
            runners = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
            for runner in runners:
                with suppress(psutil.NoSuchProcess):
                    runner.kill()
            psutil.wait_procs(runners, timeout=20)
        self.process.wait()


def _environment(home: Path, models: Path, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": machine.ENVIRON.get("PATH", ""),
        "HOME": str(home),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(models),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "-1",
        **extra,
    }


def _await(server: OllamaServer) -> None:
    deadline = time.monotonic() + _START_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with suppress(OSError, http.client.HTTPException):
            if server.request("GET", "/api/version")[0] == 200:
                return
        time.sleep(0.02)
    said = server.log
    server.stop()
    raise RuntimeError(f"ollama serve did not answer on {server.url}; its log:\n{said}")


def start(
    engine: InstalledEngine, folder: Path, *, environ: Mapping[str, str] | None = None, models: Path | None = None
) -> OllamaServer:
    """Start `ollama serve` with `folder` for its home and log; answers /api/version when this returns."""
    home = folder / "home"
    store = models or folder / "models"
    for each in (home, store):
        each.mkdir(parents=True, exist_ok=True)
    port = machine.free_port()
    log_path = folder / "ollama.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*machine.ENDS_WITH_TESTS, engine.ollama, "serve"],
            env=_environment(home, store, port, environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = OllamaServer(port, store, home, log_path, process)
    _await(server)
    return server


def starter_store(engine: InstalledEngine) -> Path:
    """A model folder with `starter:latest`, made through the real API once per machine. Copy it, do not serve it."""
    folder = machine.CACHE / "stores" / f"{engine.version}-{starter.SHA256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            server = start(engine, part)
            try:
                server.create(STARTER, starter.path())
            finally:
                server.stop()
            server.models.rename(folder)
            shutil.rmtree(part)
    return folder


def starter_copy(engine: InstalledEngine, target: Path) -> Path:
    """A store of the caller's own with `starter:latest`; damaging it harms nobody."""
    shutil.copytree(starter_store(engine), target)
    return target
