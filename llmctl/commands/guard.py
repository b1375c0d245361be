"""guard."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption
from llmctl.errors import ExitCode, UsageError
from llmctl.output import Output

if TYPE_CHECKING:
    from llmctl.env import Env
    from llmctl.workflows.guard import Guard

SHORTEST_SECONDS = 0.1
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def guard(
    ctx: typer.Context,
    duration: Annotated[
        str | None, typer.Argument(metavar="[DURATION]", help="With --hold: for how long, such as 90s, 30m or 2h.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, change nothing; the exit code answers.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Keep the running guard's hands off.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="End a hold.")] = False,
    textfile: Annotated[
        Path | None, typer.Option("--textfile", metavar="FILE", help="Write counters for Prometheus into FILE.")
    ] = None,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.")] = 5.0,
    reset_uvm: Annotated[
        bool, typer.Option("--reset-uvm", help="Root's unit is there that loads nvidia_uvm anew on demand.")
    ] = False,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """Keep the pinned models resident. Runs until it is ended.

    Looks every few seconds, generates nothing while the model works, and mends what it has the rights to.

    \b
    PRECONDITIONS
      llmctl up has pinned the models of the profile.
    \b
    SIDE EFFECTS
      Loads models; ends a runner that is stuck; starts the engine anew where llmctl or its service started it.
      Downloads nothing, and signals no server that llmctl did not start.
    \b
    EXIT CODES
      0 ended by SIGTERM; with --once: every model is resident and proved; a hold was set or taken back
      2 the profile is invalid, or the duration is none
      3 only with --once: the server is not running
      5 only with --once: a model is not resident or not proved; with --hold or --resume: the service is root's
    \b
    EXAMPLE
      llmctl guard --once
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if hold or resume:
        return pause(env, out, hold, resume, duration)
    if duration is not None:
        raise UsageError("a duration goes with --hold", "llmctl guard --hold 30m")
    if interval < SHORTEST_SECONDS:
        raise UsageError(f"--interval is at least {SHORTEST_SECONDS} s", "llmctl guard --help")
    made = build(env, out, profile, interval, textfile, reset_uvm)
    if once:
        return look_once(out, made)
    signal.signal(signal.SIGTERM, lambda *_: made.stop.set())
    made.run()
    return ExitCode.OK


def build(env: Env, out: Output, ref: str | None, interval: float, textfile: Path | None, reset_uvm: bool) -> Guard:
    from llmctl.core.guard.facts import Limits
    from llmctl.core.progress import silent
    from llmctl.output.guard import event_line
    from llmctl.workflows.guard import Guard, no_consent
    from llmctl.workflows.telling import Event, Teller
    from llmctl.workflows.up import Up

    def line(event: Event) -> None:
        if out.json:
            out.record(event)
        else:
            out.write(event_line(event) + "\n")
            out.flush()

    chosen = env.profile(ref)
    up = Up(chosen, env.lock_path(chosen), env.services(), silent, no_consent)
    teller = Teller(env.environ, env.paths.runtime, line, textfile)
    return Guard(up, teller, Limits(interval), reset_uvm)


def look_once(out: Output, made: Guard) -> ExitCode:
    from llmctl.output.guard import guard_lines
    from llmctl.workflows.findings import GuardResult

    found = tuple(made.once())
    result = GuardResult(made.up.profile.reference, made.lookout.address.url, found)
    out.show(result, guard_lines)
    # Who holds the guard, or has the GPU, has ended the server on purpose.
    if made.lookout.running is None and not any(model.reason in {"held", "leased"} for model in found):
        return ExitCode.UNREACHABLE
    return ExitCode.OK if result.good else ExitCode.NO


def pause(env: Env, out: Output, hold: bool, resume: bool, duration: str | None) -> ExitCode:
    """Set a hold or take it back."""
    from llmctl.output.guard import hold_lines
    from llmctl.workflows import holding

    if hold and resume:
        raise UsageError("--hold and --resume exclude each other", "llmctl guard --help")
    env.require_root("guard")
    runtime = env.paths.runtime
    limit = None if duration is None else seconds(duration)
    out.show(holding.resume(runtime) if resume else holding.hold(runtime, limit), hold_lines)
    return ExitCode.OK


def seconds(text: str) -> float:
    """`90`, `90s`, `30m`, `2h` or `1d`."""
    unit = UNITS.get(text[-1:])
    number = text[:-1] if unit else text
    try:
        value = float(number) * (unit or 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise UsageError(f"no duration: {text!r}", "llmctl guard --hold 30m")
    return value
