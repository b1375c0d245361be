"""The clock jumps, or the machine was asleep. Only the guard's clock is changed, by a library preloaded into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import SHARED
from tests.service.faults import clock
from tests.service.faults.served import CLOCK, Served, fault
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model", "nvml")
DAY = 86_400


@pytest.fixture
def shift(served: Served) -> Iterator[Path]:
    """The file that says how far the guard's clock is ahead."""
    path = served.folder / "shared" / "shift"
    clock.shift(path)
    inside = f"Environment=LD_PRELOAD={CLOCK / clock.NAME} CLOCK_SHIFT={SHARED / path.name}"
    served.add(GUARD_UNIT, "clock", inside)
    served.calm()
    yield path
    served.take_away(GUARD_UNIT, "clock")


def probes(served: Served) -> int:
    """How many requests for tokens the engine has answered."""
    said = served.container.run("journalctl", "--no-pager", "--unit", ENGINE_UNIT, "--boot").stdout
    return said.count('"/api/generate"')


@fault(what="the clock jumps ahead", how="a day, for the guard", happens="nothing", again="never away", seconds=DAY)
@fault(what="the clock jumps back", how="a day, for the guard", happens="nothing", again="never away", seconds=-DAY)
def test_the_clock_jumps(served: Served, shift: Path, seconds: int) -> None:
    since, runner, looks = len(served.events()), served.runner, looked(served)
    clock.shift(shift, wall=seconds)
    served.until("some more looks", lambda: looked(served) > looks + 10)
    assert served.events(since) == []
    assert served.runner == runner
    with served.away("a jump of the clock", lambda: True):
        clock.shift(shift)


def looked(served: Served) -> int:
    said = served.container.run("journalctl", "--no-pager", "--unit", ENGINE_UNIT, "--boot").stdout
    return said.count('"/api/ps"')


@fault(
    what="the machine resumes from sleep (simulated)",
    how="the clock that counts sleep goes ahead by an hour, for the guard",
    happens="the guard notices it by itself and has the model generate one token; the model stays where it is",
    again="never away, proved again after one look and one token",
)
def test_a_resume(served: Served, shift: Path) -> None:
    before, runner = probes(served), served.runner
    with served.away("a resume", lambda: probes(served) > before):
        clock.shift(shift, slept=3600)
    assert served.runner == runner
    assert served.steps(len(served.events())) == []
