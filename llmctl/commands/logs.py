"""logs: what the owned server writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag
from llmctl.errors import ExitCode, NotFound
from llmctl.output import Output
from llmctl.output.text import visible

if TYPE_CHECKING:
    from llmctl.env import Env
    from llmctl.system.systemd import Installed

POLL_SECONDS = 0.2
TAIL_BYTES = 4 << 20


@dataclass(frozen=True)
class LogLine:
    """One line of the server's log."""

    line: str


@dataclass(frozen=True)
class LogLines:
    """The end of the server's log."""

    path: Path
    lines: tuple[str, ...]


def logs(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows, until Ctrl-C.")] = False,
    number: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    json: JsonFlag = False,
) -> ExitCode:
    """Show the log of the server that llmctl started.

    \b
    PRECONDITIONS
      llmctl up has started a server. The log stays after llmctl down. That of a service is in the journal, which
      root and the group systemd-journal may read.
    \b
    SIDE EFFECTS
      None.
    \b
    EXIT CODES
      0 shown
      4 there is no log
    \b
    EXAMPLE
      llmctl logs -n 20
    """
    from llmctl.system.log_file import tail

    env: Env = ctx.obj
    out = Output(env, json)
    service = env.server.service
    if service is not None:
        return of_journal(env, out, service, follow, number)
    path = env.paths.server_log
    if not path.exists():
        raise no_log(env)
    position = path.stat().st_size
    lines = tail(path, TAIL_BYTES).splitlines()
    shown = tuple(lines[len(lines) - number :] if number < len(lines) else lines)
    if not follow:
        out.show(LogLines(path, shown), lambda found, _: list(found.lines))
        return ExitCode.OK
    for line in shown:
        say(out, line)
    for line in growing(path, position):
        say(out, line)
    return ExitCode.OK


def of_journal(env: Env, out: Output, service: Installed, follow: bool, number: int) -> ExitCode:
    """What the unit wrote, from the journal. NotFound where this user may not read it, or nothing is there."""
    from llmctl.core import unit
    from llmctl.system.systemd import Manager

    manager, name = Manager(service.scope, env.environ), unit.ENGINE if service.engine else unit.FOREIGN
    if follow:
        for line in manager.follow(name, number):
            say(out, line)
        return ExitCode.OK
    found = tuple(manager.journal(name, number))
    if not found and number:
        hint = "sudo llmctl logs" if service.scope == "system" else manager.shown_status()
        raise NotFound(f"the journal shows this user nothing of {name}", hint)
    out.show(LogLines(Path("journal"), found), lambda shown, _: list(shown.lines))
    return ExitCode.OK


def say(out: Output, line: str) -> None:
    if out.json:
        out.record(LogLine(line))
    else:
        out.write(visible(line) + "\n")
        out.env.stdout.flush()


def growing(path: Path, position: int) -> Iterator[str]:
    """Lines as they are written; a log that was rotated is followed from its new beginning."""
    rest = b""
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position, rest = 0, b""
        if size > position:
            with path.open("rb") as file:
                file.seek(position)
                data = file.read(size - position)
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
        time.sleep(POLL_SECONDS)


def no_log(env: Env) -> NotFound:
    state = env.state
    if state is not None and state.owner == "foreign":
        return NotFound(
            f"the server at {state.base_url} was not started by llmctl, which has no log of it",
            "journalctl -u ollama.service",
        )
    return NotFound("there is no log: llmctl has not started a server yet", "llmctl up")
