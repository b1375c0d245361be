"""How running steps are drawn: a live checklist on a terminal, plain lines elsewhere.

Both tick by themselves, so that a step that says nothing for minutes (one large file being compiled) is
still seen to be alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from llmctl.core.progress import Step
from llmctl.output.text import duration, size, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

HEARTBEAT_SECONDS = 5.0
FRAMES_PER_SECOND = 8
MARKS = {"running": "..", "done": "ok", "skipped": "--", "failed": "no"}
STYLES = {"running": "cyan", "done": "green", "skipped": "dim", "failed": "red"}


@dataclass
class Row:
    """A step as it stands, with the times that only the one who draws it knows."""

    step: Step
    started: float
    first_count: int = 0
    counting_since: float = 0.0
    said: float = field(default=0.0)
    finished: float | None = None

    def update(self, step: Step, now: float) -> None:
        if step.completed is not None and self.step.completed is None:
            self.first_count, self.counting_since = step.completed, now
        self.step = step
        if step.state != "running":
            self.finished = now

    def seconds(self, now: float) -> float:
        return (self.finished or now) - self.started

    def words(self, now: float) -> str:
        """Detail, counts, speed and time left, as far as they are known."""
        parts = [self.step.detail, *self.counts(now)] if self.step.state == "running" else [self.step.detail]
        return ", ".join(part for part in parts if part)

    def counts(self, now: float) -> list[str]:
        done, total = self.step.completed, self.step.total
        if done is None:
            return []
        in_bytes = self.step.unit == "bytes"
        count = size if in_bytes else str
        unit = "" if in_bytes else f" {self.step.unit}"
        shown = [f"{count(done)} of {count(total)}{unit}" if total else f"{count(done)}{unit}"]
        elapsed = now - self.counting_since
        if elapsed > 1 and done > self.first_count:
            rate = (done - self.first_count) / elapsed
            if in_bytes:
                shown.append(f"{size(int(rate))}/s")
            if total and total > done:
                shown.append(f"about {duration((total - done) / rate)} left")
        return shown


class Checklist:
    """The rows, and a thread that calls `tick` while any of them runs."""

    interval_seconds = 1.0

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self, step: Step) -> None:
        now = time.monotonic()
        with self.lock:
            row = self.rows.get(step.id)
            if row is None:
                row = self.rows[step.id] = Row(step, started=now)
                if step.completed is not None:
                    row.first_count, row.counting_since = step.completed, now
            row.update(step, now)
            self.changed(row, now)

    def start(self) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopped.wait(self.interval_seconds):
            with self.lock:
                self.tick(time.monotonic())

    def changed(self, row: Row, now: float) -> None:
        raise NotImplementedError

    def tick(self, now: float) -> None:
        raise NotImplementedError


class PlainLines(Checklist):
    """One line when a step starts, one when it ends, and one every few seconds between."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self.write = write

    def changed(self, row: Row, now: float) -> None:
        if row.step.state != "running" or not row.said:
            self.say(row, now)

    def tick(self, now: float) -> None:
        running = [row for row in self.rows.values() if row.step.state == "running"]
        # The newest speaks for those around it: a build runs inside "engine".
        if running and now - max(row.said for row in self.rows.values()) >= HEARTBEAT_SECONDS:
            self.say(running[-1], now)

    def say(self, row: Row, now: float) -> None:
        first = not row.said
        row.said = now
        took = "" if first and row.step.state == "running" else f" ({duration(row.seconds(now))})"
        words = row.words(now)
        self.write(f"{MARKS[row.step.state]}  {row.step.title}{': ' + words if words else ''}{took}")


class LiveChecklist(Checklist):
    """All steps at once, redrawn in place, by Rich."""

    interval_seconds = 1 / FRAMES_PER_SECOND

    def __init__(self, stream: TextIO, colour: bool) -> None:
        super().__init__()
        from rich.console import Console

        self.console = Console(file=stream, no_color=not colour, highlight=False)
        self.live: Live | None = None

    def start(self) -> None:
        from rich.live import Live

        self.live = Live(self.table(time.monotonic()), console=self.console, auto_refresh=False)
        self.live.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        if self.live is not None:
            self.live.update(self.table(time.monotonic()), refresh=True)
            self.live.stop()
            self.live = None

    def changed(self, row: Row, now: float) -> None:
        # The next frame shows it; a download reports far more often than an eye can follow.
        pass

    def tick(self, now: float) -> None:
        if self.live is not None:
            self.live.update(self.table(now), refresh=True)

    def table(self, now: float) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_column(no_wrap=True, justify="right")
        with self.lock:
            for row in self.rows.values():
                mark = Text(MARKS[row.step.state], style=STYLES[row.step.state])
                grid.add_row(
                    mark, Text(visible(row.step.title)), Text(visible(row.words(now))), duration(row.seconds(now))
                )
        grid.expand = True
        return grid
