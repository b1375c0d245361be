"""list. A module of its own: it is asked often, and what `pull` needs takes time to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, StoreOption
from llmctl.errors import ExitCode
from llmctl.library import lock_file, usage
from llmctl.output import Output
from llmctl.output.inventory import list_lines
from llmctl.workflows import inventory

if TYPE_CHECKING:
    from llmctl.env import Env


def list_(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Ask the registries whether pinned names have moved.")] = False,
    store: StoreOption = None,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """List the models, their pins, and what they take of the disk.

    The model folder is read where it can be, with or without a server; else the server is asked. A pin is pinned
    (its alias has it), drifted (the alias has other weights, or is gone), missing, or unknown where nobody tells.

    \b
    PRECONDITIONS
      A model folder that can be read, or a running server.
    \b
    SIDE EFFECTS
      Notes in the state folder where a lock lies that is not among your profiles, so that prune spares its models.
      Only with --check are registries asked.
    \b
    EXIT CODES
      0 listed, also where a registry could not be asked
      1 the model folder cannot be read, and no server runs
      3 the server is on another machine and not running
      4 no model folder (--store)
    \b
    EXAMPLE
      llmctl list --check
    """
    env: Env = ctx.obj
    chosen = env.profile(profile)
    lock_path = env.lock_path(chosen)
    lock = lock_file.read(lock_path)
    usage.seen(env.paths, lock_path, lock)
    found = inventory.look(env.server, chosen, lock, env.client, given=store, check=check)
    Output(env, json).show(found, list_lines)
    return ExitCode.OK
