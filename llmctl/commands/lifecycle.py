"""up and down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, OffloadFlag, ProfileOption, YesFlag, complete_profiles
from llmctl.core.progress import Step
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.lifecycle import down_lines, up_lines

if TYPE_CHECKING:
    from llmctl.env import Env
    from llmctl.workflows.up import UpResult


def up(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="PROFILE", help="The same as --profile.", autocompletion=complete_profiles),
    ] = None,
    profile: ProfileOption = None,
    update: Annotated[bool, typer.Option("--update", help="Accept new weights for a name.")] = False,
    allow_offload: OffloadFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Make the profile true. Repeatable.

    An engine is there, the server runs, the models are pinned, loaded and proved.

    \b
    PRECONDITIONS
      None. Without a profile of your own, one is chosen by the GPUs found.
    \b
    SIDE EFFECTS
      May install an engine, download models, start a server and load models.
      A server that runs already is used as it is and never stopped. Where llmctl's service is installed, its units
      are started, and the guard is waited for.
    \b
    EXIT CODES
      0 the models are resident and proved
      1 a step failed
      2 consent is needed (--yes), or the profile is invalid
      5 a model does not fit, is not the pinned one, or could not be proved; or the service is root's
    \b
    EXAMPLE
      llmctl up quickstart --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    result = bring_up(env, out, name or profile, yes, update, allow_offload)
    out.show(result, up_lines)
    return ExitCode.OK if result.verdict == "proved" else ExitCode.NO


def bring_up(
    env: Env, out: Output, ref: str | None, yes: bool, update: bool = False, allow_offload: bool = False
) -> UpResult:
    """Run `up` with its progress on stderr."""
    from llmctl.workflows.up import Up

    chosen = env.find_profile(ref)
    profile = chosen.profile.partial if allow_offload else chosen.profile
    with out.progress() as progress:
        progress(Step("profile", "profile", "done", chosen.words))
        consent = out.consent(yes)
        work = Up(profile, env.lock_path(profile), env.services(), progress, consent, update)
        service = env.server.service
        if service is None:
            return work.run()
        from llmctl.workflows import service as units

        units.require_same(service, chosen.profile, given=ref is not None)
        return units.up(work, service, env.client)


def down(
    ctx: typer.Context,
    unload: Annotated[bool, typer.Option("--unload", help="Unload the models of an attached server.")] = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Stop what llmctl started. Repeatable.

    A server that it did not start goes on.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      Ends the owned server and every runner of it, orphans too.
      With --unload, unloads the models of an attached server. A service stays off until the next boot or up.
      The guard keeps its hands off until up.
    \b
    EXIT CODES
      0 stopped, or nothing ran
      5 the service is root's
    \b
    EXAMPLE
      llmctl down
    """
    from llmctl.workflows.down import down as run_down

    env: Env = ctx.obj
    out = Output(env, json)
    service = env.server.service
    with out.progress() as progress:
        if service is not None and service.engine:
            from llmctl.workflows import service as units

            result = units.down(env.server, service, progress)
        else:
            result = run_down(env.server, env.client, unload, progress)
    out.show(result, down_lines)
    return ExitCode.OK
