"""install-service and uninstall-service."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, YesFlag
from llmctl.errors import ExitCode, UsageError
from llmctl.output import Output
from llmctl.output.service import service_lines

if TYPE_CHECKING:
    from llmctl.env import Env
    from llmctl.workflows.install import ServiceResult


class Models(str, Enum):
    move = "move"
    copy = "copy"


UserFlag = Annotated[bool, typer.Option("--user", help="For your own user only; needs no root.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print every file and command; change nothing.")]


def install_service(
    ctx: typer.Context,
    user: UserFlag = False,
    dry_run: DryRunFlag = False,
    profile: ProfileOption = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Keep Ollama's own ollama.service, and add what it lacks.")
    ] = False,
    reset_uvm: Annotated[
        bool, typer.Option("--reset-uvm", help="Let root load nvidia_uvm anew when the guard finds CUDA dead.")
    ] = False,
    import_models: Annotated[
        Models | None, typer.Option("--import-models", help="Bring the pinned models into the service's store.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="PATH", help="With --import-models: where they are now.")
    ] = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Make systemd the owner of the server and its guard. Repeatable.

    For the whole machine, or with --user for your own user.

    \b
    PRECONDITIONS
      systemd. For the whole machine: root, and a python3 of the system of the version that runs llmctl.
    \b
    SIDE EFFECTS
      For the whole machine: a user llmctl, a copy of llmctl in /opt/llmctl and of the engine in /var/lib/llmctl, the
      profile and its pins in /etc/llmctl, three units, which are started. With --user: three units, which are started.
      A unit that llmctl did not write is never changed; --adopt adds a drop-in beside ollama.service and restarts it.
      With --import-models move the models leave the store that they are in. --reset-uvm adds two units of root's,
      which stop the engine, load nvidia_uvm anew and start it again when the guard asks.
    \b
    EXIT CODES
      0 installed, or already so
      1 a step failed; the port is taken
      2 a wrong option, or consent needed and nobody to ask
      5 root is needed, or ollama.service is there and --adopt was not given
    \b
    EXAMPLE
      sudo llmctl install-service --profile 24gb --import-models copy
    """
    env: Env = ctx.obj
    if user:
        env = env.of_user()
    out = Output(env, json)
    if user and (adopt or reset_uvm or import_models or store):
        only = "--adopt, --reset-uvm, --import-models and --store"
        raise UsageError(f"{only} are for the whole machine", "leave out --user")
    if adopt and reset_uvm:
        raise UsageError("--reset-uvm goes with an engine of llmctl's own", "leave out --adopt")
    with out.progress() as progress:
        if user:
            from llmctl.workflows.install import install_user

            chosen = env.profile(profile)
            result = install_user(env.server, chosen, own_command(), progress, dry_run)
        else:
            from llmctl.workflows.install import PROFILE
            from llmctl.workflows.install_system import Install

            caller = env.invoker()
            chosen = caller.profile(profile or (str(PROFILE) if PROFILE.exists() else None))
            result = Install(
                chosen,
                caller.lock_path(chosen),
                caller.server,
                caller.engines,
                env.environ,
                progress,
                out.consent(yes),
                adopt,
                reset_uvm,
                None if import_models is None else "move" if import_models is Models.move else "copy",
                store,
                dry_run,
            ).run()
    out.show(result, service_lines)
    return ExitCode.OK


def uninstall_service(
    ctx: typer.Context,
    user: UserFlag = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the models, pins and profile too.")] = False,
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Take the units away. Repeatable.

    Models, pins and profile stay.

    \b
    PRECONDITIONS
      For the whole machine: root.
    \b
    SIDE EFFECTS
      Stops and removes what install-service made: units, drop-in, runtime folder, and for the whole machine
      /opt/llmctl and the engines. With --purge also the models, pins and profile, and the user llmctl.
    \b
    EXIT CODES
      0 removed, or nothing was there
      2 consent needed and nobody to ask
      5 root is needed
    \b
    EXAMPLE
      sudo llmctl uninstall-service
    """
    env: Env = ctx.obj
    if user:
        env = env.of_user()
    out = Output(env, json)
    result: ServiceResult
    with out.progress() as progress:
        if user:
            from llmctl.workflows.uninstall import uninstall_user

            result = uninstall_user(env.server, purge, out.consent(yes), progress, dry_run)
        else:
            from llmctl.workflows.uninstall import uninstall

            result = uninstall(env.environ, purge, out.consent(yes), progress, dry_run)
    out.show(result, service_lines)
    return ExitCode.OK


def own_command() -> tuple[str, ...]:
    """How to run this very llmctl again."""
    script = Path(sys.executable).with_name("llmctl")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "llmctl")
