"""status."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.lifecycle import status_lines
from llmctl.workflows.status import Status
from llmctl.workflows.status import status as look

if TYPE_CHECKING:
    from llmctl.env import Env

WATCH_SECONDS = 2.0


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 s, until Ctrl-C.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code answers.")] = False,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """Show the server, the model, and where it lies.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      None.
    \b
    EXIT CODES
      0 the server runs (with --quiet: and every pinned model is resident and proved)
      3 the server is not running
      5 only with --quiet: it runs, and a pinned model is not resident or not proved
    \b
    EXAMPLE
      llmctl status --json
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if watch:
        keep_watching(env, out, profile)
    if quiet:
        found = of_server(env, profile)
        return ExitCode.OK if found.good else code_of(found) or ExitCode.NO
    found = now(env, profile)
    out.show(found, status_lines)
    return code_of(found)


def now(env: Env, profile: str | None) -> Status:
    found = of_server(env, profile)
    if env.server.service is None:
        return found
    from llmctl.workflows import service

    chosen = env.profile(profile) if env.server.service.profile else None
    return replace(found, service=service.status(env.server, chosen, look_at_gpu=not found.good))


def of_server(env: Env, profile: str | None) -> Status:
    state = env.server.state()
    if state is None or (profile is not None and env.profile(profile).reference != state.profile):
        url = env.known_url(profile)
        return look(env.server, env.client(url) if url else None, None)
    return look(env.server, env.client(state.base_url), state)


def code_of(found: Status) -> ExitCode:
    return ExitCode.OK if found.state == "running" else ExitCode.UNREACHABLE


def keep_watching(env: Env, out: Output, profile: str | None) -> None:
    """Print until interrupted: NDJSON, or a screen that is drawn anew on a terminal."""
    import time

    clear = "\x1b[2J\x1b[H" if env.stdout.isatty() and not out.json else ""
    while True:
        found = now(env, profile)
        if out.json:
            out.record(found)
        else:
            out.write(clear)
            out.show(found, status_lines)
            env.stdout.flush()
        time.sleep(WATCH_SECONDS)
