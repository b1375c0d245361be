"""A booted container per test, and what is outside it bound in at fixed places."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.parts import engine as engine_part
from tests.parts import nvml, ollama, rootfs, starter, systemd
from tests.parts.nvml import NvmlStandin
from tests.parts.systemd import Container

# Where a container has what the tests' parts are; all of it read-only.
CHECKOUT = Path("/checkout")
ENGINE = Path("/engine")
STARTER_GGUF = Path("/starter.gguf")
STARTER_STORE = Path("/starter-store")
NVML = Path("/nvml")
SHARED = Path("/shared")


class StartContainer(Protocol):
    def __call__(self, binds: Mapping[str, Path] | None = None, *, deadline_seconds: float = 60.0) -> Container: ...


@pytest.fixture(scope="session")
def bound() -> dict[str, Path]:
    """Path in the container -> path here, of every part that this machine has."""
    found = {str(rootfs.INSTALLATION): rootfs.installation(), str(CHECKOUT): rootfs.CHECKOUT}
    engine = engine_part.find()
    if engine:
        found[str(ENGINE)] = engine.root
    if starter.unavailable() is None:
        found[str(STARTER_GGUF)] = starter.path()
        if engine:
            found[str(STARTER_STORE)] = ollama.starter_store(engine)
    if nvml.unavailable() is None:
        found[str(NVML)] = nvml.library().parent
    return found


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every user in the container can read, as SHARED; the test writes into it from outside."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def start_container(tmp_path: Path, bound: dict[str, Path], shared: Path) -> Iterator[StartContainer]:
    """Boot containers with binds of the test's own besides. They end with the test, which shows their journals when
    it fails."""
    running: list[Container] = []

    def start(binds: Mapping[str, Path] | None = None, *, deadline_seconds: float = 60.0) -> Container:
        every = {**bound, str(SHARED): shared, **(binds or {})}
        folder = tmp_path / f"container-{len(running)}"
        container = systemd.start(folder, every, deadline_seconds=deadline_seconds)
        running.append(container)
        return container

    yield start
    for container in running:
        print(f"--- journal of the container\n{container.journal_tail()}")
        container.close()


@pytest.fixture
def container(start_container: StartContainer) -> Container:
    """A booted systemd with llmctl on its PATH. Mark: `real("systemd")`."""
    return start_container()


@dataclass(frozen=True)
class ContainerGpu:
    """`standin.set` changes what the driver tells; `environ` is what a unit needs to see it."""

    standin: NvmlStandin
    environ: dict[str, str]


@pytest.fixture
def container_nvml(shared: Path) -> ContainerGpu:
    """A scripted driver for units, with one idle RTX 3090 until told otherwise. Mark: `real("nvml", "systemd")`."""
    standin = NvmlStandin(nvml.library(), shared / "nvml.script")
    standin.set(nvml.ScriptedGpu())
    environ = {"LD_LIBRARY_PATH": str(NVML), "NVML_STANDIN": str(SHARED / "nvml.script")}
    return ContainerGpu(standin, environ)


Ask = Callable[..., Any]


@pytest.fixture
def ask() -> Ask:
    """`ask(port, path, body=None)`: one exchange with a server in the container, from outside it; the JSON answer."""

    def exchange(port: int, path: str, body: Any = None, *, timeout_seconds: float = 120.0) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
        try:
            data = None if body is None else json.dumps({"stream": False} | body).encode()
            connection.request("GET" if data is None else "POST", path, body=data)
            return json.loads(connection.getresponse().read() or b"null")
        finally:
            connection.close()

    return exchange
