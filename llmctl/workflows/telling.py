"""What the guard says, and where: lines, the journal, the service manager, guard.json, a Prometheus textfile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.core.guard import metrics
from llmctl.errors import LlmctlError
from llmctl.system import guard_note, notify
from llmctl.system.files import atomic_write
from llmctl.system.guard_note import ModelNote, Note

IDENTIFIER = "llmctl-guard"
# syslog(3)
WARNING, INFORMATION = "4", "6"


@dataclass(frozen=True)
class Event:
    """Something that a person may want to know later. `action` None: nothing was done."""

    at_seconds: float
    model: str
    reason: str
    action: str | None
    words: str
    expected: str = ""
    observed: str = ""
    remedy: str = ""
    degraded: bool = False


@dataclass
class Teller:
    """`line` shows an event to whoever looks on; under systemd the journal gets it with its fields instead."""

    environ: Mapping[str, str]
    runtime: Path
    line: Callable[[Event], None]
    textfile: Path | None = None
    journal: Path = notify.JOURNAL
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manager = notify.Manager(self.environ)
        self._to_journal = notify.writes_to_journal(self.environ)
        self._ready = False
        self._status = ""
        self._beaten = 0.0
        self._unwritable: set[str] = set()
        self._since = (("", ""), 0.0)
        self._action: str | None = None
        self._published: object = None

    def event(self, event: Event) -> None:
        key = (event.reason, event.action or "none")
        self.counts[key] = self.counts.get(key, 0) + 1
        if event.action is not None:
            self._action = event.action
        if not (self._to_journal and notify.log(entry(event), self.journal)):
            self.line(event)

    def beat(self, now: float) -> None:
        """Tell the watchdog that the loop turns, three times as often as it wants to hear it."""
        limit = self.manager.watchdog_seconds
        if limit is not None and now - self._beaten >= limit / 3 and self.manager.tell(WATCHDOG="1"):
            self._beaten = now

    def status(self, text: str, ready: bool) -> None:
        """What the manager does not take is said again at the next look: a lost READY would be waited for for ever."""
        if text != self._status and self.manager.tell(STATUS=text):
            self._status = text
        if ready and not self._ready and self.manager.tell(READY="1", STATUS=text):
            self._ready, self._status = True, text

    def stopping(self) -> None:
        self.manager.tell(STOPPING="1", STATUS="ending")
        self._attempt("delete", lambda: guard_note.remove(self.runtime))

    def publish(
        self, worst: ModelNote, models: tuple[ModelNote, ...], ready: bool, resident: Mapping[str, bool]
    ) -> None:
        """Write the note and the textfile, if anything in them changed."""
        state = (worst, models, ready, dict(self.counts), self._action)
        if state == self._published:
            return
        self._published = state
        if (worst.reason, worst.name) != self._since[0]:
            self._since = ((worst.reason, worst.name), time.time())
        pid, started = guard_note.own_identity()
        note = Note(
            reason=worst.reason,
            words=worst.words,
            since_seconds=self._since[1],
            action=self._action,
            degraded=worst.degraded,
            ready=ready,
            models=models,
            counters=self.counters(),
            pid=pid,
            started=started,
        )
        self._attempt("note", lambda: guard_note.write(self.runtime, note))
        if (path := self.textfile) is not None:
            text = metrics.textfile(self.counts, resident, {model.name: model.degraded for model in models})
            self._attempt("textfile", lambda: atomic_write(path, text))

    def counters(self) -> dict[str, dict[str, int]]:
        """By reason, then by action."""
        found: dict[str, dict[str, int]] = {}
        for (reason, action), count in sorted(self.counts.items()):
            found.setdefault(reason, {})[action] = count
        return found

    def _attempt(self, what: str, write: Callable[[], None]) -> None:
        """A full or read-only disk is said once and stops nothing."""
        try:
            write()
            self._unwritable.discard(what)
        except (LlmctlError, OSError) as error:
            # Tried again at the next change.
            self._published = None
            if what not in self._unwritable:
                self._unwritable.add(what)
                self.event(Event(time.time(), "", "degraded", None, f"{error}; the guard goes on without it"))


def entry(event: Event) -> dict[str, str]:
    """The fields of one entry in the journal."""
    fields = {
        "MESSAGE": sentence(event),
        "PRIORITY": WARNING if event.degraded else INFORMATION,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "REASON": event.reason,
        "MODEL": event.model,
        "ACTION": event.action or "none",
        "EXPECTED": event.expected,
        "OBSERVED": event.observed,
        "REMEDY": event.remedy,
        "DEGRADED": "1" if event.degraded else "0",
    }
    return {name: value for name, value in fields.items() if value}


def sentence(event: Event) -> str:
    """One line: what is, what was done, what a person can do."""
    done = f" ({DONE[event.action]})" if event.action else ""
    seen = f"; expected {event.expected}, observed {event.observed}" if event.expected and event.observed else ""
    helps = f"; {event.remedy}" if event.degraded and event.remedy else ""
    return f"{event.reason}: {event.words}{done}{seen}{helps}"


DONE = {
    "load": "loading it",
    "end_runner": "ending its runner",
    "restart_engine": "starting the engine anew",
    "reset_uvm": "having nvidia_uvm loaded anew",
    "probe": "asking it for one token",
}
