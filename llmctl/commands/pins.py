"""verify, repair."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, StoreOption, YesFlag, complete_models
from llmctl.errors import ExitCode, UsageError
from llmctl.output import Output
from llmctl.output.pins import repair_lines, verify_lines
from llmctl.workflows import pins
from llmctl.workflows import repair as mending

if TYPE_CHECKING:
    from llmctl.env import Env

UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Pinned models. Default: all.", autocompletion=complete_models),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="AGE", help="Do not hash again what was hashed within: 30m, 24h, 7d."),
]


def verify(
    ctx: typer.Context,
    model: ModelsArgument = None,
    since: SinceOption = None,
    store: StoreOption = None,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """Hash what is pinned: are the weights those of the lock, byte for byte?

    Every blob that a pin reaches is hashed, its manifest too; with a server, also that it serves them.
    One that was interrupted goes on with --since.

    \b
    PRECONDITIONS
      A lock with a pin; the right to read the model folder. No server is needed.
    \b
    SIDE EFFECTS
      Notes in the state folder which blobs were hashed. The model folder is not changed.
    \b
    EXIT CODES
      0 everything pinned is there and hashes
      1 the model folder cannot be read
      2 no age (--since)
      4 nothing is pinned, or no such pin
      5 something is missing, damaged, or not what is served; each is named
    \b
    EXAMPLE
      llmctl verify --since 24h
    """
    env: Env = ctx.obj
    out = Output(env, json)
    age_seconds = None if since is None else age(since)
    found = scope(env, "verify", model or [], profile, store)
    with out.progress() as progress:
        result = pins.verify(found, age_seconds, progress)
    out.show(result, verify_lines)
    return ExitCode.OK if result.good else ExitCode.NO


def repair(
    ctx: typer.Context,
    model: ModelsArgument = None,
    since: SinceOption = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be repaired, and change nothing.")] = False,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Fetch again what is pinned and missing or damaged, and nothing else.

    It verifies first. Each bad blob comes from the source that the lock names, is hashed beside the old one, and
    takes its place. One that was interrupted goes on with the bytes it has. Works with the server running or not.

    \b
    PRECONDITIONS
      A lock with a pin; the right to write into the model folder; its sources can be reached. A model that the
      server made itself (the starter, a GGUF file) may need the server.
    \b
    SIDE EFFECTS
      Downloads; replaces bad blobs and manifests in the model folder. A blob that hashes is never touched.
    \b
    EXIT CODES
      0 everything pinned is there and hashes, now or before
      1 a source failed, the disk is full, or the model folder may not be written
      2 consent is needed (--yes)
      3 only a server can make it anew, and none runs
      4 nothing is pinned, or no such pin
      5 something is still bad; with --dry-run: something is bad; or the service is root's
    \b
    EXAMPLE
      llmctl repair --yes
    """
    env: Env = ctx.obj
    out = Output(env, json)
    age_seconds = None if since is None else age(since)
    if not dry_run and store is None:
        env.require_root("repair")
    found = scope(env, "repair", model or [], profile, store)
    with out.progress() as progress:
        if dry_run:
            result = mending.plan(found, age_seconds, progress)
        else:
            result = mending.repair(found, env.environ, age_seconds, progress, out.consent(yes))
    out.show(result, repair_lines)
    return ExitCode.OK if result.good else ExitCode.NO


def age(text: str) -> float:
    """Seconds of `30m`, `24h`, `7d`."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    if found is None:
        raise UsageError(f"--since {text!r} is no age; write it as 90s, 30m, 24h or 7d", "llmctl verify --since 24h")
    return float(found[1]) * UNITS_SECONDS[found[2]]


def scope(env: Env, verb: str, names: list[str], reference: str | None, given: Path | None) -> pins.Scope:
    """The pins, their store, and its server where one runs."""
    from llmctl.library import lock_file
    from llmctl.workflows.store import others, place

    profile = env.profile(reference)
    lock_path = env.lock_path(profile)
    chosen = pins.chosen(lock_file.read(lock_path), names, lock_path)
    if given is not None:
        given = given.expanduser().absolute()
        pins.require_rights(verb, given, profile, env.paths)
    where = place(env.server, profile, given)
    pins.require_rights(verb, where.store.path, profile, env.paths)
    client = env.client(where.running.base_url) if where.running else None
    return pins.Scope(
        profile=profile,
        lock_path=lock_path,
        pins=chosen,
        place=where,
        client=client,
        paths=env.paths,
        others=partial(others, env.server, where.store.path),
        names=tuple(names),
        reference=reference,
        given=given,
    )
