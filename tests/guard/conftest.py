"""A guard as its user runs it, beside the real engine and the real starter model that `llmctl up` brought up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from llmctl.system import guard_note
from llmctl.system.guard_note import Note
from tests.lifecycle.conftest import Llmctl, llmctl, prepared, ready  # noqa: F401 - fixtures

DEADLINE_SECONDS = 200.0
# Everything that the guard waits for is counted in looks.
INTERVAL = "0.5"


def until(what: str, condition: Callable[[], Any], deadline_seconds: float = DEADLINE_SECONDS) -> Any:
    """Poll until a condition holds; what it gave."""
    deadline = time.monotonic() + deadline_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)
    return found


class RunningGuard:
    """A guard in the foreground. `events` are its lines as they came."""

    def __init__(self, cli: Llmctl, process: subprocess.Popen[str]) -> None:
        self.cli = cli
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    @property
    def runtime(self) -> Path:
        return Path(os.environ["XDG_STATE_HOME"]) / "llmctl" / "run"

    @property
    def note(self) -> Note | None:
        return guard_note.read(self.runtime)

    def told(self, reason: str, action: str | None = None, since: int = 0) -> dict[str, Any]:
        """The first event with that reason, and action where one is given, after the first `since` events."""

        def found() -> dict[str, Any] | None:
            for event in self.events[since:]:
                if event["reason"] == reason and action in {None, event["action"]}:
                    return event
            assert self.process.poll() is None, self.process.communicate()[1]
            return None

        event: dict[str, Any] = until(f"{reason} {action or ''}; events: {self.summary}", found)
        return event

    @property
    def summary(self) -> list[tuple[str, str | None]]:
        return [(event["reason"], event["action"]) for event in self.events]

    def is_ready(self) -> Note:
        """Wait until every model is resident and proved, and has answered a probe."""

        def good() -> Note | None:
            note = self.note
            return note if note is not None and note.ready and note.pid == self.process.pid else None

        note: Note = until(f"ready; events: {self.summary}, note: {self.note}", good)
        return note

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, self.errors = self.process.communicate(timeout=60)
        self._reader.join(timeout=10)
        return self.process.returncode


class StartGuard(Protocol):
    def __call__(self, *arguments: str, interval: str = INTERVAL) -> RunningGuard: ...


@pytest.fixture
def start_guard(llmctl: Llmctl) -> Iterator[StartGuard]:  # noqa: F811
    """Start `llmctl guard --json` with a short interval; ended with the test."""
    running: list[RunningGuard] = []

    def start(*arguments: str, interval: str = INTERVAL) -> RunningGuard:
        command = ("guard", "--json", "--interval", interval, *arguments)
        process = subprocess.Popen(
            llmctl.command(*command),
            env={**os.environ, **llmctl.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        made = RunningGuard(llmctl, process)
        running.append(made)
        return made

    yield start
    for each in running:
        each.stop(signal.SIGKILL)
        print("--- events of the guard", *each.events, each.errors, sep="\n")


@pytest.fixture
def guarded(llmctl: Llmctl, ready: str, start_guard: StartGuard) -> RunningGuard:  # noqa: F811
    """A guard of a model that is up, resident and proved."""
    assert llmctl("up", ready).code == 0
    guard = start_guard()
    guard.is_ready()
    return guard
