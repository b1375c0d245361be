"""What a long step shows: plain lines that never stand still, speed and time left from what was counted."""

from __future__ import annotations

import pytest

from llmctl.core.progress import Step
from llmctl.output.progress import HEARTBEAT_SECONDS, PlainLines
from llmctl.output.text import duration, pairs, size, table

MIB = 1 << 20


class Clock:
    """time.monotonic of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("llmctl.output.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_step_that_says_nothing_is_seen_to_be_alive(clock: Clock) -> None:
    lines: list[str] = []
    plain = PlainLines(lines.append)
    plain.step(Step("engine", "engine"))
    plain.step(Step("build", "build", detail="one large file"))
    for _ in range(6):
        clock.now += HEARTBEAT_SECONDS
        plain.tick(clock.now)
    assert lines[:3] == ["..  engine", "..  build: one large file", "..  build: one large file (5.0 s)"]
    assert len(lines) == 8, "one line per heartbeat, from the newest step only"


def test_many_events_are_one_line_per_heartbeat(clock: Clock) -> None:
    lines: list[str] = []
    plain = PlainLines(lines.append)
    for number in range(1, 1001):
        clock.now += 0.001
        plain.step(Step("pull", "model", completed=number * MIB, total=1000 * MIB))
    plain.step(Step("pull", "model", "done", "there"))
    assert lines == ["..  model: 1 MiB of 1000 MiB", "ok  model: there (1.0 s)"]


def test_speed_and_time_left_are_of_what_was_counted(clock: Clock) -> None:
    lines: list[str] = []
    plain = PlainLines(lines.append)
    # Resumed at 400 MiB: these bytes are not part of the speed.
    plain.step(Step("pull", "model", completed=400 * MIB, total=1000 * MIB))
    clock.now += 10
    plain.step(Step("pull", "model", completed=500 * MIB, total=1000 * MIB))
    plain.tick(clock.now)
    assert lines[-1] == "..  model: 500 MiB of 1000 MiB, 10 MiB/s, about 50 s left (10 s)"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (MIB, "1 MiB"), (3 << 29, "1.50 GiB"), (24 << 30, "24.0 GiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
    assert size(None) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (356400, "4 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_narrow_terminal_gets_blocks_instead_of_columns() -> None:
    header, rows = ["name", "digest"], [["qwen3:8b", "500a1f067a9f"], ["llama3", "365c0bd3c000"]]
    assert table(header, rows, 80)[0].split() == ["name", "digest"]
    narrow = table(header, rows, 20)
    assert all(len(line) <= 20 for line in narrow)
    assert "500a1f067a9f" in "\n".join(narrow)
    assert all(len(line) <= 40 for line in pairs([("state", "running " * 20)], 40))
