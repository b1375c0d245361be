"""Two containers for all of these tests, with and without a GPU that the profile requires; each test begins with the
model resident, and with a guard that remembers nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts import systemd
from tests.parts.engine import InstalledEngine
from tests.service.conftest import SHARED
from tests.service.faults import clock
from tests.service.faults.served import CLOCK, Served, serving


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rows = getattr(metafunc.function, "faults", [])
    if rows and rows[0][1]:
        names = list(rows[0][1])
        values = [tuple(arguments[name] for name in names) for _, arguments in rows]
        metafunc.parametrize(names, values, ids=[re.sub(r"\W+", "-", what) for what, _ in rows])


def prepared(engine: InstalledEngine, bound: dict[str, Path], folder: Path, *, gpu: bool) -> Iterator[Served]:
    shared = folder / "shared"
    shared.mkdir(mode=0o755)
    binds = {**bound, str(SHARED): shared, str(CLOCK): clock.library().parent}
    container = systemd.start(folder / "container", binds)
    try:
        with serving(container, engine, folder, gpu=gpu) as served:
            yield served
    finally:
        container.close()


@pytest.fixture(scope="session")
def without_gpu(
    engine: InstalledEngine, bound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    yield from prepared(engine, bound, tmp_path_factory.mktemp("served"), gpu=False)


@pytest.fixture(scope="session")
def with_gpu(
    engine: InstalledEngine, bound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    yield from prepared(engine, bound, tmp_path_factory.mktemp("served-gpu"), gpu=True)


@pytest.fixture
def served(without_gpu: Served) -> Iterator[Served]:
    """Resident, no GPU required. Mark: `real("systemd", "ollama", "model")`."""
    without_gpu.calm()
    yield without_gpu
    without_gpu.show()


@pytest.fixture
def gpu_served(with_gpu: Served) -> Iterator[Served]:
    """Resident on the stand-in GPU, which the profile requires. Mark: `real(…, "rpc", "nvml")`."""
    with_gpu.calm()
    yield with_gpu
    with_gpu.show()
