"""What happens to a served model, each made on purpose, on a real systemd: the section "Service" of
docs/reliability.md is its table."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts import nvml, systemd
from tests.parts.engine import InstalledEngine
from tests.parts.nvml import NvmlStandin
from tests.service.conftest import SHARED
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT
from tests.service.served import Served, fault, serving

pytestmark = pytest.mark.real("systemd", "ollama", "model")


@pytest.fixture(scope="module")
def prepared(
    engine: InstalledEngine, bound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One container for this file. No GPU is required."""
    folder = tmp_path_factory.mktemp("served")
    shared = folder / "shared"
    shared.mkdir(mode=0o755)
    container = systemd.start(folder / "container", {**bound, str(SHARED): shared})
    try:
        driver = NvmlStandin(nvml.library(), shared / "nvml.script")
        with serving(container, engine, folder, driver, gpu=False) as served:
            yield served
    finally:
        container.close()


@pytest.fixture
def served(prepared: Served) -> Served:
    prepared.calm()
    return prepared


@fault(
    what="the machine boots",
    how="reboot of the container",
    happens="the units start, the guard loads the model and proves it",
    again="the start of the engine, one look and one load",
)
def test_boot(served: Served) -> None:
    with served.away("a boot", lambda: True):
        served.container.reboot()


@fault(
    what="the runner is killed",
    how="kill -9 of llama-server",
    happens="not_running: the guard loads the model again",
    again="one look and one load",
)
def test_the_runner_is_killed(served: Served) -> None:
    before, since = served.runner, len(served.events())
    with served.away("kill -9 of llama-server", lambda: served.runners not in ([], [before])):
        served.container.signal(before, signal.SIGKILL)
    assert served.steps(since) == [("not_running", "load")]
