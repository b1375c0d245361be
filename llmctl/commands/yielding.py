"""yield."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.output import Output
from llmctl.output.yielding import not_back, time_was_up

if TYPE_CHECKING:
    from llmctl.env import Env


def yield_(
    ctx: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command and its arguments.")],
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="End the command after so long.")
    ] = None,
) -> int:
    """Give the GPU to a command, then take it back.

    The models are unloaded while it runs; afterwards they are loaded and proved again. The command has this
    terminal: Ctrl-C and Ctrl-Z go to it. Under sudo it runs as the user who called sudo. If llmctl is killed, the
    command gets SIGTERM, and the guard or the next `llmctl up` brings the models back.

    \b
    PRECONDITIONS
      No other command has been given the GPU. A server need not run.
    \b
    SIDE EFFECTS
      Unloads and loads models. `llmctl up` and `llmctl ask` are refused meanwhile; the guard waits.
      What asks the server without llmctl loads its model again.
    \b
    EXIT CODES
      The command's own; 128 + n when signal n ended it.
      124 the time was up (SIGTERM, then SIGKILL)
      126 or 127 it cannot be executed, or does not exist
      Where the command ended with 0 and the models could not be brought back: 1, 3 or 5.
      5 another command has the GPU, or the service is root's
    \b
    EXAMPLE
      llmctl yield -- python train.py
    """
    env: Env = ctx.obj
    from llmctl.workflows.lease import Yield

    env.require_root("yield")
    out = Output(env)
    work = Yield(env.services(), env.profile, env.lock_path, out.progress, out.consent(yes=False), env.environ)
    done = work.run(command, timeout)
    if done.timed_out:
        out.note(time_was_up(timeout))
    if done.problem is not None and done.status == 0:
        raise done.problem
    if done.problem is not None:
        out.note(not_back(done.problem))
    return done.status
