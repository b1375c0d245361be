"""prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, StoreOption, YesFlag
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.prune import plan_lines, prune_lines
from llmctl.workflows.prune import prepare

if TYPE_CHECKING:
    from llmctl.env import Env


def prune(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    store: StoreOption = None,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Remove what no pin, no model and no download needs.

    Aliases (llmctl/...) that no lock of yours pins, blobs that no model names, downloads that broke off more
    than an hour ago. Never a model's own name. While something may be arriving, nothing of a model goes.

    \b
    PRECONDITIONS
      A model folder that can be read. No server is needed.
    \b
    SIDE EFFECTS
      Deletes files of the model folder, after showing them and asking.
    \b
    EXIT CODES
      0 removed, or nothing to remove
      1 the model folder cannot be read or written
      2 something would go, and --yes is not given
      5 something is left that only its owner may remove; the command for it is shown; or the service is root's
    \b
    EXAMPLE
      llmctl prune --dry-run
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if not dry_run and store is None:
        env.require_root("prune")
    declared = env.profile(profile)
    run = prepare(env.server, declared, env.lock_path(declared), env.client, store)
    plan = run.plan()
    planned = run.result(plan, dry_run=True)
    if dry_run or planned.empty:
        out.show(planned, prune_lines)
        return ExitCode.OK
    if not json and not yes:
        for line in plan_lines(planned, out.width):
            out.note(line)
    with out.progress() as progress:
        result = run.run(plan, out.consent(yes), progress)
    out.show(result, prune_lines)
    return ExitCode.NO if result.remedy else ExitCode.OK
