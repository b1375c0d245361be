"""One look after the other, of two models and of a machine that slept, without any engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmctl.core.address import Address
from llmctl.core.profile import ModelSpec, Profile
from llmctl.system import clocks, gpu_health
from llmctl.system.gpu_health import GpuHealth
from llmctl.system.vitals import Vitals
from llmctl.workflows import guard as loop
from llmctl.workflows.guard import Guard
from llmctl.workflows.looking import Lookout, ServerSeen
from llmctl.workflows.telling import Event, Teller
from llmctl.workflows.watched import Watched
from tests.guard.test_judge import GONE, GOOD, KNOWN, WANT

FIRST = replace(WANT, name="first", alias="llmctl/first:aaaa")
SECOND = replace(WANT, name="second", alias="llmctl/second:bbbb")


@dataclass
class NoServer:
    """What a guard asks of a server that has never run."""

    paths: Any

    def state(self) -> None:
        return None

    def owned(self) -> None:
        return None

    def address(self, _: Profile) -> Address:
        return Address("127.0.0.1", 1, "test")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Guard, list[Event]]:
    """A guard of two pinned models: the first is gone, the second waits for a probe."""
    paths = SimpleNamespace(runtime=tmp_path, state=tmp_path, llmctl="llmctl")
    library = SimpleNamespace(read_lock=lambda _: None)
    services = SimpleNamespace(server=NoServer(paths), library=lambda _: library)
    profile = Profile("p", (ModelSpec("first"), ModelSpec("second")))
    up = SimpleNamespace(services=services, profile=profile, lock_path=tmp_path / "p.lock")
    told: list[Event] = []
    watched = [Watched(FIRST), Watched(SECOND)]
    monkeypatch.setattr(loop, "targets", lambda *_, **__: (watched, []))
    made = Guard(cast(Any, up), Teller({}, tmp_path / "run", told.append), clock=lambda: GOOD.at_seconds)
    made.memories["second"] = replace(KNOWN, probe_wanted=True)
    looks = [replace(GONE, owner="foreign"), replace(GOOD, owner="foreign")]
    monkeypatch.setattr(made.lookout, "look", lambda *_, **__: looks)
    monkeypatch.setattr(made.lookout, "pause", lambda: None)
    return made, told


def test_two_models_do_not_begin_a_step_at_the_same_look(two: tuple[Guard, list[Event]]) -> None:
    """How the first one's load ended would never be known."""
    guard, told = two
    guard.tick()
    assert guard.errands.current is not None
    assert (guard.errands.current.action, guard.errands.current.model) == ("load", "first")
    assert guard.errands.finished.wait(10)
    guard.tick()
    assert next(event.words for event in told if "failed" in event.words).startswith("load of first failed: no server")


def test_a_server_that_starts_is_looked_at_again_before_the_interval_is_over(
    two: tuple[Guard, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, _ = two
    starting = replace(GONE, server="absent", server_identity=None, unit="starting")
    monkeypatch.setattr(guard.lookout, "look", lambda *_, **__: [starting, starting])
    guard.tick()
    assert guard.pause_seconds == guard.limits.soon_seconds < guard.limits.interval_seconds
    failed = replace(starting, unit="failed")
    monkeypatch.setattr(guard.lookout, "look", lambda *_, **__: [failed, failed])
    guard.tick()
    assert guard.pause_seconds == guard.limits.interval_seconds


@dataclass
class Seen(Lookout):
    """Looks at runners that a test says are there."""

    runners: list[Vitals | None] = field(default_factory=list)

    def _look_at_server(self) -> ServerSeen:
        return ServerSeen("answers")

    def _runner(self, model: Watched) -> Vitals | None:
        return self.runners.pop(0)


def test_a_runner_that_ends_right_after_a_resume_has_the_gpu_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def asks(pids: tuple[int, ...] = ()) -> GpuHealth:
        asked.append(pids)
        return GpuHealth("fine", "", dict.fromkeys(pids))

    monkeypatch.setattr(gpu_health, "look", asks)
    monkeypatch.setattr(clocks, "slept_seconds", lambda: 60.0)
    runner = Vitals(4194305, "S", 1, 1.0, 5, 0, 0)
    server = NoServer(SimpleNamespace(runtime=tmp_path, state=tmp_path))
    client = SimpleNamespace(tags=list)
    made = Seen(
        cast(Any, server),
        lambda _: cast(Any, client),
        Address("127.0.0.1", 1, "test"),
        [Watched(WANT)],
        clock=lambda: 100.0,
        runners=[runner, None],
        _slept=0.0,
    )
    assert made.look()[0].resumed
    assert not made.look()[0].resumed
    assert asked == [(runner.pid,), ()]
