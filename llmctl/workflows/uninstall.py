"""uninstall-service: what install-service made goes; what a person may want again stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import unit
from llmctl.core.progress import Consent, Progress
from llmctl.errors import Refused
from llmctl.system import systemd
from llmctl.system.paths import SYSTEM
from llmctl.system.systemd import SYSTEM_UNITS, Manager
from llmctl.workflows.install import (
    CREDENTIALS,
    OPT,
    SYSUSERS,
    Action,
    Change,
    ServiceResult,
    changing,
    perform,
    remove,
    run,
)
from llmctl.workflows.install_system import ran, user_exists

if TYPE_CHECKING:
    from llmctl.server import Server


def uninstall_user(server: Server, purge: bool, consent: Consent, progress: Progress, dry_run: bool) -> ServiceResult:
    """No unit and no runtime folder stays. `purge`: llmctl's own store, its state and credentials go too."""
    manager = Manager("user", server.environ)
    folder = systemd.units_folder("user", server.environ)
    known = systemd.installed(server.paths, server.environ) is not None
    actions = list(removal_of_units(manager, folder)) if known else []
    actions.append(remove(server.paths.runtime))
    if purge:
        gone = [server.paths.models, server.paths.state, server.paths.config / CREDENTIALS]
        ask_purge([path for path in gone if path.exists()], consent, dry_run)
        actions += [remove(path) for path in gone]
    steps = perform(actions, progress, dry_run)
    return ServiceResult("user", dry_run, any(step.due for step in steps), False, None, steps, left(folder))


def removal_of_units(manager: Manager, folder: Path) -> Iterator[Action]:
    """Stop and disable what llmctl wrote, then delete it. Another's file of the same name stays."""
    mine = [name for name in unit.ALL_UNITS if systemd.own_text(folder / name) is not None]
    if not mine:
        return
    if unit.TARGET in mine:
        yield changing(manager, "disable", "--now", unit.TARGET)
    services = [name for name in mine if name != unit.TARGET]
    yield changing(manager, "stop", *services, due=bool(services))
    for name in mine:
        yield remove(folder / name)
    yield changing(manager, "daemon-reload")
    # A unit that failed would go on being listed, as one without a file.
    yield run(manager.argv("reset-failed", *mine), partial(quietly, manager, "reset-failed", *mine))


def left(folder: Path) -> tuple[str, ...]:
    """What a person added to the units stays theirs."""
    found = [path for name in unit.ALL_UNITS for path in sorted((folder / f"{name}.d").glob("*.conf"))]
    return tuple(f"{path} is not llmctl's, and stays" for path in found)


def quietly(manager: Manager, *arguments: str) -> None:
    """Where there is nothing to forget, systemctl says so with a status."""
    systemd.run(manager.argv(*arguments), manager.environ, systemd.CHANGE_SECONDS)


def ask_purge(paths: list[Path], consent: Consent, dry_run: bool) -> None:
    if paths and not dry_run:
        consent(f"{', '.join(map(str, paths))} will be deleted, with the models in there.")


def uninstall(
    environ: Mapping[str, str], purge: bool, consent: Consent, progress: Progress, dry_run: bool
) -> ServiceResult:
    """No unit, drop-in or runtime folder stays; models, pins and profile do unless `purge`, and with them the user."""
    if os.geteuid() != 0 and not dry_run:
        raise Refused("the service of the whole machine is root's to remove", "sudo llmctl uninstall-service")
    manager = Manager("system", environ)
    if purge:
        ask_purge([path for path in (SYSTEM.data, SYSTEM.config) if path.exists()], consent, dry_run)
    steps = perform(removal(manager, purge), progress, dry_run)
    kept = tuple(f"{path} stays (--purge removes it)" for path in (SYSTEM.data, SYSTEM.config) if path.exists())
    notes = (*left(SYSTEM_UNITS), *(kept if not purge else ()))
    return ServiceResult("system", dry_run, any(step.due for step in steps), False, None, steps, notes)


def removal(manager: Manager, purge: bool) -> Iterator[Action]:
    yield from removal_of_units(manager, SYSTEM_UNITS)
    drop_in = SYSTEM_UNITS / f"{unit.FOREIGN}.d" / unit.DROP_IN
    if systemd.own_text(drop_in) is not None:
        yield remove(drop_in)
        yield changing(manager, "daemon-reload")
        yield Action(Change("remove", str(drop_in.parent), None, True), partial(remove_if_empty, drop_in.parent))
    if systemd.own_text(SYSUSERS) is not None:
        yield remove(SYSUSERS)
    gone = [SYSTEM.runtime, OPT, SYSTEM.engines, SYSTEM.cache]
    yield from (remove(path) for path in [*gone, *([SYSTEM.data, SYSTEM.config] if purge else [])])
    if user_exists():
        argv = ("userdel", unit.USER)
        kept = SYSTEM.data.exists() and not purge
        yield run(argv, partial(ran, argv, manager), due=not kept)


def remove_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return
