"""export, import, push."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, StoreOption, YesFlag, complete_models
from llmctl.errors import ExitCode, UsageError
from llmctl.library import lock_file
from llmctl.output import Output
from llmctl.output.transfer import export_lines, import_lines, push_lines
from llmctl.workflows import models, store, transfer
from llmctl.workflows import push as pushing

if TYPE_CHECKING:
    from llmctl.env import Env


def export(
    ctx: typer.Context,
    model: Annotated[list[str], typer.Argument(metavar="MODEL", autocompletion=complete_models)],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The archive; - is stdout.")],
    store_path: StoreOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """Write pinned models into one file for another machine.

    A tar in the OCI image layout, with pins and licences. Every blob is hashed on the way.

    \b
    PRECONDITIONS
      The models are pinned. The server may run or not.
    \b
    SIDE EFFECTS
      Writes FILE. Nothing of it stays where it fails.
    \b
    EXIT CODES
      0 written
      1 the disk is full, or the store cannot be read
      2 FILE is there already or is no regular file; stdout is a terminal, or is to carry JSON too
      4 a model is not pinned, or not there
      5 a blob or a manifest is not what the pin says
    \b
    EXAMPLE
      llmctl export qwen3:4b-q4_K_M -o qwen3.tar
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if output == transfer.PIPE and json:
        raise UsageError("stdout cannot carry the archive and a JSON document", "leave out --json, or: -o FILE")
    declared = env.profile(profile)
    place = store.place(env.server, declared, store_path)
    lock = lock_file.read(env.lock_path(declared))
    if output == transfer.PIPE:
        if env.stdout.isatty():
            raise UsageError("stdout is a terminal, and the archive is no text", "llmctl export MODEL -o FILE")
        with out.progress() as progress:
            sent = transfer.export_to(out.write_bytes, model, lock, place, progress=progress)
        for line in export_lines(sent, out.width):
            out.note(line)
        return ExitCode.OK
    with out.progress() as progress:
        result = transfer.export(model, Path(output), lock, place, force=force, progress=progress)
    out.show(result, export_lines)
    return ExitCode.OK


def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A tar, an OCI layout folder, or - for stdin.")],
    store_path: StoreOption = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call a model that comes without a pin.")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="Accept this one, as the GGUF itself says it. Default: the profile's, or Q4_K_M.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Accept other weights for a pinned name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; hash nothing large.")] = False,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Take models and their pins out of an archive. Repeatable.

    Every digest is checked before anything is visible. One that was interrupted goes on.

    \b
    PRECONDITIONS
      None. The server may run or not.
    \b
    SIDE EFFECTS
      Writes into the store: blobs, a model named llmctl/..., the plain name where it is free; changes the lock.
    \b
    EXIT CODES
      0 there and pinned
      1 the disk is full, or the store cannot be written
      2 no name for the model, or consent is needed (--yes)
      4 no such file or store
      5 the archive is damaged, the pin is another, or the quantization is; or the service is root's
    \b
    EXAMPLE
      llmctl import qwen3.tar --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if not dry_run:
        env.require_root("import")
    declared = env.profile(profile)
    place = store.place(env.server, declared, store_path)
    if file == transfer.PIPE and env.stdin.isatty():
        raise UsageError("stdin is a terminal", "llmctl import FILE")
    with out.progress() as progress:
        result = transfer.Import(
            source=file,
            name=name,
            quantization=quantization,
            update=update,
            dry_run=dry_run,
            profile=declared,
            place=place,
            lock_path=env.lock_path(declared),
            state=env.paths.state,
            progress=progress,
            consent=out.consent(yes),
        ).run()
    out.show(result, import_lines)
    return ExitCode.OK


def push(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=complete_models)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="host/namespace/model:tag in the registry.")],
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Push a pinned model to a private registry. Repeatable.

    The engine uploads it; then the registry is asked whether it has what the pin says.

    \b
    PRECONDITIONS
      The profile's server is running and has the model as pinned. The registry wants no login.
    \b
    SIDE EFFECTS
      Uploads to the registry. The server has the model as NAME meanwhile.
    \b
    EXIT CODES
      0 the registry has it
      1 the registry is unreachable, wants a login, or refused a blob
      2 no registry in NAME, or NAME there stands for another model (--yes replaces it)
      3 the server is not running
      4 the model is not pinned
      5 the server or the registry has another manifest than the pin says
    \b
    EXAMPLE
      llmctl push qwen3:4b-q4_K_M models.lan:5000/team/qwen3:4b
    """
    env: Env = ctx.obj
    out = Output(env, json)
    declared = env.profile(profile)
    running = models.running(env.server, declared)
    lock = lock_file.read(env.lock_path(declared))
    client = env.client(running.base_url)
    with out.progress() as progress:
        result = pushing.push(
            model, name, lock, running, client, env.environ, progress=progress, consent=out.consent(yes)
        )
    out.show(result, push_lines)
    return ExitCode.OK
