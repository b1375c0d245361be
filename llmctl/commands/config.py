"""profiles, init, config: what may be declared, a first declaration, and what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, complete_profiles
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.profiles import config_lines, init_lines, profiles_lines

if TYPE_CHECKING:
    from llmctl.env import Env


def profiles(ctx: typer.Context, json: JsonFlag = False) -> ExitCode:
    """List the profiles; the active one is marked.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      None.
    \b
    EXIT CODES
      0 listed; a profile of your own that cannot be used is listed with its first problem
    \b
    EXAMPLE
      llmctl profiles
    """
    from llmctl.workflows.profiles import list_profiles

    env: Env = ctx.obj
    found = list_profiles(env.paths, env.environ, env.server.last_profile())
    Output(env, json).show(found, profiles_lines)
    return ExitCode.OK


def init(
    ctx: typer.Context,
    profile: Annotated[
        str | None,
        typer.Argument(
            help="A shipped profile. Default: the one for this machine's GPUs.", autocompletion=complete_profiles
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the profile, write nothing.")] = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Write a profile of your own.

    It is a commented copy of the shipped one for this machine's GPUs.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      Writes profile.yaml, and the JSON Schema that editors check it by, into the config folder.
    \b
    EXIT CODES
      0 written, or there already with this content
      4 no such shipped profile
      5 another profile is there, and --force is not given; or the service is root's
    \b
    EXAMPLE
      llmctl init --dry-run
    """
    from llmctl.workflows.profiles import init as write_profile

    env: Env = ctx.obj
    out = Output(env, json)
    if not dry_run:
        env.require_root("init", beside=True)
    name, reason = (profile, "as asked") if profile else env.chosen_profile()
    done = write_profile(name, reason, env.paths, force=force, dry_run=dry_run)
    if dry_run and not json:
        out.note(f"{done.profile} ({done.reason}) would be written to {done.path}")
    out.show(done, init_lines)
    return ExitCode.OK


def config(ctx: typer.Context, profile: ProfileOption = None, json: JsonFlag = False) -> ExitCode:
    """Show every setting in force, and its source.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      None.
    \b
    EXIT CODES
      0 shown
      2 the profile is invalid
      4 no such profile
    \b
    EXAMPLE
      llmctl config --json
    """
    from llmctl.system.shipped import reference
    from llmctl.workflows.settings import settings

    env: Env = ctx.obj
    named = reference(profile, env.paths, env.environ, env.server.last_profile())
    source = named[1] if named else f"this machine's GPUs: {env.chosen_profile()[1]}"
    found = settings(env.profile(profile), source, env.paths, env.environ, env.server)
    Output(env, json).show(found, config_lines)
    return ExitCode.OK
