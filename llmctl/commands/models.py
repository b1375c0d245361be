"""pull, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, OffloadFlag, ProfileOption, YesFlag, complete_models
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.models import pull_lines, rm_lines
from llmctl.workflows import models

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.core.profile import Profile
    from llmctl.env import Env
    from llmctl.library import Library
    from llmctl.server import Running


def pull(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A registry name, hf.co/user/repo:TAG, a GGUF file, or: starter",
            autocompletion=complete_models,
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="What to call a GGUF file or the starter.")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="Accept this one, as the GGUF itself says it. Default: the profile's, or Q4_K_M.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Accept new weights for a pinned name.")] = False,
    allow_offload: OffloadFlag = False,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Get a model and pin it. Repeatable.

    It is checked and given its private alias. One that was interrupted goes on. A tag that moved since it was
    pinned is refused, with what changed; --update takes it. A name that another program pulled anew gets its
    pinned model back.

    \b
    PRECONDITIONS
      The profile's server is running.
    \b
    SIDE EFFECTS
      Downloads into the server's store, adds a model named llmctl/..., writes the profile's lock.
    \b
    EXIT CODES
      0 pinned and there
      1 the source is unreachable, the disk is full, or what came is damaged
      2 no model name, or consent is needed (--yes): for a large download, or to give a name its model back
      3 the server is not running
      4 no such model or file
      5 the name stands for other weights than the pinned ones, the quantization is another, or it does not fit; or the
        service is root's
    \b
    EXAMPLE
      llmctl pull qwen3:4b-q4_K_M
    """
    env: Env = ctx.obj
    out = Output(env, json)
    env.require_root("pull")
    declared = env.profile(profile)
    chosen = declared.partial if allow_offload else declared
    spec = models.spec_for(chosen, model, name, quantization)
    running, library, lock_path = at(env, chosen)
    with out.progress() as progress:
        models.admit(spec, chosen, running, env.server, env.client(running.base_url))
        result = models.pull(
            spec, library, lock_path, running, update=update, progress=progress, consent=out.consent(yes)
        )
    out.show(result, pull_lines)
    return ExitCode.OK


def rm(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=complete_models)],
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Delete a model and its pin.

    It is unloaded first. Its aliases go with it. Asks first where a lock pins it, another profile's too.

    \b
    PRECONDITIONS
      The profile's server is running.
    \b
    SIDE EFFECTS
      Deletes weights that no other model uses; changes the profile's lock.
    \b
    EXIT CODES
      0 removed
      2 it is pinned, by this profile or another, and --yes is not given
      3 the server is not running
      4 no such model
      5 the service is root's
    \b
    EXAMPLE
      llmctl rm qwen3:4b-q4_K_M --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    env.require_root("rm")
    running, library, lock_path = at(env, env.profile(profile))
    with out.progress() as progress:
        result = models.remove(
            model,
            library,
            lock_path,
            running,
            server=env.server,
            progress=progress,
            consent=out.consent(yes),
        )
    out.show(result, rm_lines)
    return ExitCode.OK


def at(env: Env, profile: Profile) -> tuple[Running, Library, Path]:
    """The profile's server, its models and its lock."""
    running = models.running(env.server, profile)
    return running, env.library(running.base_url), env.lock_path(profile)
