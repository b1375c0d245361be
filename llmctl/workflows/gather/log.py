"""The log of the server since it started: its file, or the journal of its unit."""

from __future__ import annotations

import mmap
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import engine_log, unit
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.log import LogFacts
from llmctl.system import systemd

if TYPE_CHECKING:
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.workflows.gather import Given

# A start writes some 10 KB before the first load, a load 40 KB, an answer 1 KB.
HEAD_BYTES = 64 << 10
TAIL_BYTES = 4 << 20
SEARCHED_BYTES = 128 << 20
JOURNAL_LINES = 5000


@dataclass(frozen=True)
class Log:
    """The text since the server's start; `whole` False: not all of it is there, but all from `complete_from` on, where
    a line tells the time. `gap`: where in the text the lines are left out."""

    text: str
    source: str
    whole: bool
    complete_from: float | None = None
    gap: int | None = None


def gather(given: Given) -> LogFacts:
    found = read(given)
    return engine_log.parse(
        found.text,
        found.source,
        since_start=found.whole,
        now_seconds=time.time(),
        complete_from=found.complete_from,
        gap=found.gap,
    )


def read(given: Given) -> Log:
    """NotGathered where this user sees no log of this server."""
    server = given.of_server
    service = given.server.service
    if server.owner == "llmctl" or (server.owner is None and service is None):
        return of_file(given.server.paths.server_log)
    if service is not None and service.engine and server.owner in {"systemd", None}:
        return of_journal(systemd.Manager(service.scope, given.environ), unit.ENGINE)
    return of_foreign(given, server)


def of_foreign(given: Given, server: ServerFacts) -> Log:
    """Of a server that llmctl did not start: its unit's journal, or the file that it writes to."""
    found = server.process
    if found is not None and found.unit is not None:
        return of_journal(systemd.Manager(found.scope, given.environ), found.unit)
    output = Path(f"/proc/{server.pid}/fd/2")
    try:
        regular = stat.S_ISREG(output.stat().st_mode)
    except OSError:
        regular = False
    if not regular:
        raise NotGathered(f"the log of the server at {server.url} cannot be seen from here")
    return of_file(output.resolve())


def of_journal(manager: systemd.Manager, name: str) -> Log:
    lines = manager.journal(name, JOURNAL_LINES)
    if not lines:
        raise NotGathered(f"the journal shows this user nothing of {name}")
    starts = [number for number, line in enumerate(lines) if engine_log.START in line]
    text = "\n".join(lines[starts[-1] :] if starts else lines) + "\n"
    return Log(text, name, bool(starts), None if starts else engine_log.first_time(text))


def of_file(path: Path) -> Log:
    """The last start in a file, and the end of it where much was written since."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head, tail = since_start(file.fileno(), size) if size else (b"", b"")
    except FileNotFoundError:
        raise NotGathered("there is no log: llmctl has not started a server yet") from None
    except OSError as error:
        raise NotGathered(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    text = tail.decode("utf-8", "replace")
    if head is None:
        return Log(text, str(path), whole=True)
    begin, rest = head.decode("utf-8", "replace"), engine_log.from_first_time(text)
    return Log(begin + rest, str(path), whole=False, complete_from=engine_log.first_time(rest), gap=len(begin))


def since_start(descriptor: int, size: int) -> tuple[bytes | None, bytes]:
    """What was written since the last start; where that is too much, or not to be found, its beginning and its end."""
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as content:
        found = content.rfind(engine_log.START.encode(), max(0, size - SEARCHED_BYTES))
        if found < 0:
            return b"", content[max(0, size - TAIL_BYTES) :]
        begin = content.rfind(b"\n", 0, found) + 1
        if size - begin <= TAIL_BYTES + HEAD_BYTES:
            return None, content[begin:]
        return content[begin : begin + HEAD_BYTES] + b"\n", content[size - TAIL_BYTES :]
