"""What the guard says: to systemd, to the journal, to Prometheus, to `status`, and to whoever looks on."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser

from llmctl.core.guard import metrics
from llmctl.system import clocks, guard_note, notify, vitals
from llmctl.system.guard_note import ModelNote
from llmctl.workflows.keep_alive import KeepAlives
from llmctl.workflows.telling import Event, Teller, sentence
from tests.guard.conftest import StartGuard, until
from tests.lifecycle.conftest import Llmctl

EVICTED = Event(
    at_seconds=0.0,
    model="qwen3:8b",
    reason="evicted",
    action="load",
    words="qwen3:8b was unloaded by rival",
    expected="llmctl/qwen3 loaded",
    observed="rival loaded",
    remedy="rival took its place 3 times",
    degraded=True,
)
WORST = ModelNote("qwen3:8b", "evicted", "it was unloaded", degraded=False)


class Listener:
    """A datagram socket as systemd has one, and everything that came."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.settimeout(0.05)
        self.messages: list[bytes] = []

    def all(self) -> list[bytes]:
        while True:
            try:
                self.messages.append(self.socket.recv(1 << 16))
            except TimeoutError:
                return self.messages

    def texts(self) -> list[str]:
        return [message.decode() for message in self.all()]


@pytest.fixture
def listen() -> Iterator[Callable[[str], Listener]]:
    made: list[Listener] = []

    def start(path: str) -> Listener:
        made.append(Listener(path))
        return made[-1]

    yield start
    for each in made:
        each.socket.close()


def short(tmp_path: Path, name: str) -> str:
    """A path that fits into a socket's name."""
    return os.path.relpath(tmp_path / name)


def parsed(data: bytes) -> dict[str, str]:
    """An entry as journald reads it (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields, rest = {}, data
    while rest:
        line, _, rest = rest.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def teller(tmp_path: Path, said: list[Event], **environ: str) -> Teller:
    return Teller(environ, tmp_path / "run", said.append, journal=tmp_path / "journal")


@pytest.mark.parametrize("abstract", [True, False])
def test_the_manager_hears_ready_once_and_every_new_status(
    tmp_path: Path, listen: Callable[[str], Listener], abstract: bool
) -> None:
    path = f"@llmctl-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(tmp_path / "n")
    heard = listen(path)
    made = teller(tmp_path, [], NOTIFY_SOCKET=path)
    for text, ready in [("loading\nit", False), ("loading\nit", False), ("resident", True), ("resident", True)]:
        made.status(text, ready)
    made.stopping()
    assert heard.texts() == [
        "STATUS=loading it",
        "STATUS=resident",
        "READY=1\nSTATUS=resident",
        "STOPPING=1\nSTATUS=ending",
    ]


def test_what_a_busy_manager_does_not_take_is_said_again(tmp_path: Path, listen: Callable[[str], Listener]) -> None:
    """A READY that was lost would leave the unit starting for ever."""
    path = str(tmp_path / "n")
    heard, made = listen(path), teller(tmp_path, [], NOTIFY_SOCKET=path, WATCHDOG_USEC="9000000")
    while notify.send(path, b"X=1"):
        pass
    made.status("resident", ready=True)
    made.beat(100.0)
    assert set(heard.texts()) == {"X=1"}
    heard.messages.clear()
    made.status("resident", ready=True)
    made.beat(100.1)
    made.status("resident", ready=True)
    assert heard.texts() == ["STATUS=resident", "READY=1\nSTATUS=resident", "WATCHDOG=1"]


def test_the_watchdog_hears_it_well_before_its_time_is_up(tmp_path: Path, listen: Callable[[str], Listener]) -> None:
    heard = listen(str(tmp_path / "n"))
    made = teller(
        tmp_path, [], NOTIFY_SOCKET=str(tmp_path / "n"), WATCHDOG_USEC="9000000", WATCHDOG_PID=str(os.getpid())
    )
    for now in [100.0, 101.0, 102.9, 103.0, 104.0, 106.1]:
        made.beat(now)
    assert heard.texts() == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}])
def test_a_watchdog_of_nobody_or_of_another_process_is_none(environ: dict[str, str]) -> None:
    assert notify.watchdog_seconds(environ) is None


def test_an_event_is_one_entry_of_the_journal_with_its_fields(
    tmp_path: Path, listen: Callable[[str], Listener]
) -> None:
    """Only where a stream of the process ends in the journal; nothing is said twice."""
    found = os.fstat(2)
    heard, said = listen(str(tmp_path / "journal")), []
    made = teller(tmp_path, said, JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}")
    made.event(EVICTED)
    (entry,) = map(parsed, heard.all())
    assert said == []
    assert entry["SYSLOG_IDENTIFIER"] == "llmctl-guard"
    assert (entry["REASON"], entry["MODEL"], entry["ACTION"]) == ("evicted", "qwen3:8b", "load")
    assert entry["PRIORITY"] == "4"
    assert entry["MESSAGE"] == sentence(EVICTED)


def test_without_a_journal_it_is_a_line(tmp_path: Path) -> None:
    found, said = os.fstat(2), []
    teller(tmp_path, said, JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}").event(EVICTED)
    teller(tmp_path, said).event(EVICTED)
    assert said == [EVICTED, EVICTED]


def test_a_line_break_in_a_field_does_not_make_another_field(tmp_path: Path, listen: Callable[[str], Listener]) -> None:
    heard = listen(str(tmp_path / "journal"))
    notify.log({"MESSAGE": "one\nREASON=forged", "REASON": "stuck"}, tmp_path / "journal")
    assert parsed(heard.all()[0]) == {"MESSAGE": "one\nREASON=forged", "REASON": "stuck"}


def test_a_sentence_says_what_is_what_is_done_and_what_helps() -> None:
    assert sentence(EVICTED) == (
        "evicted: qwen3:8b was unloaded by rival (loading it); expected llmctl/qwen3 loaded, observed rival loaded; "
        "rival took its place 3 times"
    )


def samples(text: str) -> dict[str, float]:
    """The textfile as Prometheus reads it."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_the_textfile() -> None:
    text = metrics.textfile({("evicted", "load"): 3, ("busy", "none"): 1}, {'a "b"\\c': True}, {"x": False})
    found = samples(text)
    assert found["llmctl_guard_events_total[('action', 'load'), ('reason', 'evicted')]"] == 3
    assert found["llmctl_resident[('model', 'a \"b\"\\\\c')]"] == 1


def test_the_textfile_is_plain_text_of_the_known_form() -> None:
    lines = metrics.textfile({("evicted", "load"): 3}, {"q": True}, {"q": False}).splitlines()
    assert 'llmctl_guard_events_total{reason="evicted",action="load"} 3' in lines
    assert 'llmctl_resident{model="q"} 1' in lines
    assert lines.count("# TYPE llmctl_resident gauge") == 1


def test_the_note_is_read_as_it_was_written_and_says_when_its_guard_has_ended(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from llmctl.workflows.telling import *\n"
        "made = Teller({}, Path(sys.argv[1]), print)\n"
        "note = ModelNote('q', 'stuck', 'it does nothing', True, 'reboot')\n"
        "made.publish(note, (note,), False, {'q': False}); print('written', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    note = guard_note.read(tmp_path)
    assert note is not None
    assert (note.reason, note.degraded, note.ready, note.alive) == ("stuck", True, False, True)
    assert note.models[0].remedy == "reboot"
    writer.communicate("")
    ended = guard_note.read(tmp_path)
    assert ended is not None
    assert not ended.alive


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"schema": 2}', b'{"schema": 1, "models": 3}', b"\xff" * 300_000]
)
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / guard_note.NAME).write_bytes(content)
    assert guard_note.read(tmp_path) is None


@pytest.mark.real("tmpfs")
def test_a_full_disk_is_said_once_and_stops_nothing(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk, said = small_disk(64 << 10), []
    (disk / "filler").write_bytes(bytes(64 << 10))
    made = Teller({}, disk / "run", said.append, textfile=disk / "metrics.prom")
    for number in range(3):
        made.publish(ModelNote("q", "loading", f"look {number}", degraded=False), (), False, {"q": False})
    assert [event.reason for event in said] == ["degraded", "degraded"]
    assert all("no space left" in event.words for event in said)
    (disk / "filler").unlink()
    made.publish(WORST, (WORST,), False, {})
    assert guard_note.read(disk / "run") is not None
    assert list(disk.glob("**/*.tmp")) == []


def test_only_a_suspend_moves_the_two_clocks_apart() -> None:
    before = clocks.slept_seconds()
    assert not clocks.resumed(before, clocks.slept_seconds())
    assert clocks.resumed(before, before + 60)


@pytest.mark.parametrize("offset", ["Z", "+00:00"])
def test_the_wall_clock_is_read_once_for_each_keep_alive(offset: str) -> None:
    """So that its jumps end none."""
    now = [100.0]
    alive = KeepAlives(lambda: now[0])
    text = f"2020-01-01T00:00:00.123456789{offset}"
    first = alive.left_seconds(text)
    assert first is not None
    assert first < 0
    now[0] += 5
    assert alive.left_seconds(text) == first - 5
    assert alive.left_seconds("2319-03-05T05:00:15.480555386Z") is None
    assert alive.left_seconds(None) is None


def test_vitals_tell_a_process_from_another_with_its_number() -> None:
    mine = vitals.read(os.getpid())
    assert mine is not None
    assert mine.state in {"R", "S"}
    assert mine.identity == f"{os.getpid()}/{mine.started}"
    assert mine.read_bytes is not None
    assert 0 < mine.age_seconds < 86400
    assert vitals.read(4194305) is None


@pytest.mark.real("ollama", "model")
def test_ready_is_said_only_when_the_model_is_resident_and_has_answered(
    llmctl: Llmctl, ready: str, start_guard: StartGuard, tmp_path: Path, listen: Callable[[str], Listener]
) -> None:
    """The guard finds a pinned model that nobody has loaded, loads it, and only then says READY."""
    assert llmctl("up", ready).code == 0
    status = llmctl("status", "--json").json
    alias = status["models"][0]["alias"]
    body = json.dumps({"model": alias, "keep_alive": 0, "stream": False}).encode()
    urllib.request.urlopen(f"{status['base_url']}/api/generate", body).read()
    until("unloaded", lambda: not llmctl("status", "--json").json["models"][0]["resident"])
    path = f"@llmctl-{os.getpid()}-{time.monotonic_ns()}"
    heard = listen(path)
    llmctl.environ |= {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"}
    guard = start_guard("--textfile", str(tmp_path / "guard.prom"))
    guard.told("loading", "load")
    until("ready", lambda: any(text.startswith("READY=1") for text in heard.texts()))
    texts: list[Any] = heard.texts()
    number = next(index for index, text in enumerate(texts) if text.startswith("READY=1"))
    assert texts[number].endswith("STATUS=starter is resident in host memory")
    assert any("starter is being loaded" in text for text in texts[:number])
    # Its own load is nobody else's, from the first look on.
    assert not [text for text in texts if "another model" in text]
    assert "WATCHDOG=1" in texts[:number]
    assert llmctl("status", "--quiet").code == 0
    assert 'llmctl_resident{model="starter"} 1' in (tmp_path / "guard.prom").read_text()
    assert guard.stop() == 0
    assert "STOPPING=1\nSTATUS=ending" in heard.texts()
