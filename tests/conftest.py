"""Fixtures shared by every test: a home of its own, the real parts, and a guard against processes left behind."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from tests import parts
from tests.parts import engine as engine_part
from tests.parts import machine, nvml, ollama, process, registry, rpc, starter, tmpfs
from tests.parts.engine import InstalledEngine
from tests.parts.nvml import NvmlStandin
from tests.parts.ollama import OllamaServer
from tests.parts.registry import RealRegistry
from tests.parts.rpc import RpcGpu

# No test asserts a time, so hypothesis does not either.
settings.register_profile("llmctl", deadline=None)
settings.load_profile("llmctl")

_CLEARED = ("LLMCTL_", "XDG_", "OLLAMA_", "LLAMA_ARG_", "CUDA_", "NVML_")
_CLEARED_NAMES = {"NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "LD_LIBRARY_PATH"}


def pytest_configure(config: pytest.Config) -> None:
    # Where a shell started the tests in the background, SIGINT is ignored, and so it would be in all they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        parts.required()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header() -> list[str]:
    return parts.lines()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("real"):
        for name in marker.args:
            if name not in parts.FINDERS:
                raise pytest.UsageError(f"{item.nodeid}: unknown real part {name!r}")
            found = parts.part(name)
            if found.real:
                continue
            if name in parts.required():
                pytest.fail(f"LLMCTL_REQUIRE names {name!r}, and it is missing: {found.detail}", pytrace=False)
            pytest.skip(f"needs the real {name!r}: {found.detail}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of the test's own with its XDG folders; no setting of the machine's gets in.

    What is expensive to have stays shared: the engines folder and pip's cache.
    """
    folder = tmp_path / "home"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(_CLEARED) or name in _CLEARED_NAMES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    for name, path in {"CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state", "CACHE": ".cache"}.items():
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / path))
    monkeypatch.setenv("LLMCTL_ENGINES_DIR", str(machine.ENGINES))
    monkeypatch.setenv("PIP_CACHE_DIR", machine.ENVIRON.get("PIP_CACHE_DIR", str(machine.PIP_CACHE)))
    return folder


@pytest.fixture(autouse=True)
def leaves_no_process(home: Path) -> Iterator[None]:
    """Fail a test after which something it started still runs, detached or not."""
    yield
    if left := process.end_leftovers(home):
        pytest.fail("the test left processes running:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session")
def engine() -> InstalledEngine:
    """The machine's real engine; tests that use it are marked `real("ollama")`."""
    found = engine_part.find()
    assert found is not None, "a test that uses `engine` needs @pytest.mark.real('ollama')"
    return found


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """A real Q4_K_M model file, shared and read-only: copy it before damaging it. Mark: `real("model")`."""
    return starter.path()


class StartOllama(Protocol):
    def __call__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        models: Path | None = None,
        with_starter: bool = False,
    ) -> OllamaServer: ...


@pytest.fixture
def ollama_server(engine: InstalledEngine, tmp_path: Path) -> Iterator[StartOllama]:
    """Start a real `ollama serve` with settings of the test's own; `with_starter` gives it a store of its own with
    `starter:latest`. Ended after the test; its log is in the test's output when the test fails."""
    running: list[OllamaServer] = []

    def start(
        environ: Mapping[str, str] | None = None, *, models: Path | None = None, with_starter: bool = False
    ) -> OllamaServer:
        folder = tmp_path / f"ollama-{len(running)}"
        if with_starter:
            models = ollama.starter_copy(engine, folder / "models")
        server = ollama.start(engine, folder, environ=environ, models=models)
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()
        print(f"--- log of {server.url}\n{server.log}")


@pytest.fixture(scope="session")
def ollama_with_starter(engine: InstalledEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    """One server per worker with `starter:latest` at context 2048, for tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("ollama")
    server = ollama.start(engine, folder, models=ollama.starter_copy(engine, folder / "models"))
    yield server
    server.stop()


@pytest.fixture
def rpc_gpu(engine: InstalledEngine, tmp_path: Path) -> Iterator[RpcGpu]:
    """A device of type GPU without a GPU; hand its `environ` to a server. Mark: `real("rpc")`."""
    gpu = rpc.start(engine, tmp_path)
    yield gpu
    gpu.stop()


@pytest.fixture
def real_registry(tmp_path: Path) -> Iterator[RealRegistry]:
    """Debian's docker-registry over plain http on 127.0.0.1, empty. Mark: `real("registry")`."""
    running = registry.start(tmp_path / "real-registry")
    yield running
    running.stop()
    print(f"--- log of {running.host}\n{running.log}")


@pytest.fixture
def https_registry(tmp_path: Path) -> Iterator[RealRegistry]:
    """The same over https on localhost; who trusts it has its `environ`. Mark: `real("registry")`."""
    running = registry.start(tmp_path / "https-registry", registry.authority(tmp_path / "authority"))
    yield running
    running.stop()
    print(f"--- log of {running.host}\n{running.log}")


@pytest.fixture
def nvml_standin(tmp_path: Path) -> NvmlStandin:
    """A scripted driver with one idle RTX 3090 until told otherwise. Mark: `real("nvml")`."""
    standin = NvmlStandin(nvml.library(), tmp_path / "nvml.script")
    standin.set(nvml.ScriptedGpu())
    return standin


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A folder on a file system of that many bytes. Mark: `real("tmpfs")`."""
    number = itertools.count()
    with ExitStack() as mounts:
        yield lambda size_bytes: mounts.enter_context(tmpfs.mounted(tmp_path / f"disk-{next(number)}", size_bytes))


@pytest.fixture
def free_port() -> Callable[[], int]:
    return machine.free_port
