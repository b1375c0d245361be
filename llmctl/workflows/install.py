"""install-service and uninstall-service: a plan of actions, each of which knows whether it is still to be done.

The plan is what `--dry-run` prints. Nothing is planned that touches a file which llmctl did not write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core import unit
from llmctl.core.address import choose_address
from llmctl.core.progress import Progress, Step
from llmctl.core.unit import Site
from llmctl.errors import LlmctlError
from llmctl.system import files, systemd
from llmctl.system.paths import SYSTEM
from llmctl.system.systemd import Manager

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.server import Server

Kind = Literal["write", "copy", "remove", "run"]

OPT = Path("/opt/llmctl")
SYSUSERS = Path("/etc/sysusers.d") / unit.SYSUSERS
PROFILE = SYSTEM.config / "profile.yaml"
CREDENTIALS = "credentials"
LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Change:
    """One step. `content` is what is written; None where there is none, or it is a secret. `due` False: it is so."""

    kind: Kind
    target: str
    content: str | None
    due: bool


@dataclass(frozen=True)
class Action:
    """A change and how to make it."""

    change: Change
    act: Callable[[], None]


@dataclass(frozen=True)
class ServiceResult:
    """What was done, or would be with `dry_run`. `profile` None after a removal."""

    scope: unit.Scope
    dry_run: bool
    changed: bool
    adopted: bool
    profile: str | None
    steps: tuple[Change, ...]
    notes: tuple[str, ...] = ()


def perform(actions: Iterable[Action], progress: Progress, dry_run: bool) -> tuple[Change, ...]:
    """Do what is due, in order."""
    done = []
    for action in actions:
        change = action.change
        if change.due and not dry_run:
            step = Step(f"{change.kind} {change.target}", change.kind, detail=change.target)
            progress(step)
            action.act()
            progress(replace(step, state="done"))
        done.append(change)
    return tuple(done)


def write(path: Path, content: str, mode: int = 0o644, *, secret: bool = False) -> Action:
    """A file of llmctl's own. Its mode is part of it, whatever the umask."""

    def act() -> None:
        files.atomic_write(path, content, mode)
        with files.translated("change", path):
            path.chmod(mode)

    return Action(Change("write", str(path), None if secret else content, text_of(path) != content), act)


def text_of(path: Path) -> str | None:
    try:
        return files.read_bounded(path, LIMIT_BYTES).decode("utf-8", "replace")
    except LlmctlError:
        return None


def run(argv: Iterable[str], act: Callable[[], None], due: bool = True) -> Action:
    return Action(Change("run", " ".join(argv), None, due), act)


def changing(manager: Manager, *arguments: str, due: bool = True) -> Action:
    return run(manager.argv(*arguments), lambda: manager.change(*arguments), due)


def remove(path: Path, due: bool | None = None) -> Action:
    """A file, link or tree; for a unit only one that llmctl wrote."""

    def act() -> None:
        with files.translated("delete", path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return Action(Change("remove", str(path), None, os.path.lexists(path) if due is None else due), act)


def system_site(address: str, *, engine: bool = True, uvm: bool = False) -> Site:
    """The service of the whole machine: fixed places only."""
    return Site(
        scope="system",
        llmctl=(str(OPT / "bin" / "llmctl"),),
        address=address,
        store=str(SYSTEM.models),
        home=str(SYSTEM.data / "home"),
        state=str(SYSTEM.state),
        credentials=str(SYSTEM.config / CREDENTIALS),
        profile=str(PROFILE),
        engine=engine,
        uvm=uvm,
    )


def user_site(server: Server, profile: Profile, llmctl: tuple[str, ...]) -> Site:
    """A service of the user's own: everything stays where it is. The port of a private profile is kept."""
    paths = server.paths
    known = systemd.installed(paths, server.environ)
    url = known.url if known and profile.private else None
    folders = {
        "LLMCTL_CONFIG_DIR": paths.config,
        "LLMCTL_DATA_DIR": paths.data,
        "LLMCTL_STATE_DIR": paths.state,
        "LLMCTL_CACHE_DIR": paths.cache,
        "LLMCTL_ENGINES_DIR": paths.engines,
        "LLMCTL_RUNTIME_DIR": paths.runtime,
    }
    named = server.environ.get("LLMCTL_ENGINE")
    extra = (("LLMCTL_ENGINE", named),) if named else ()
    return Site(
        scope="user",
        llmctl=llmctl,
        address=(url or server.address(profile).url).removeprefix("http://"),
        store=str(server.store(profile)),
        home=str(server.home(profile)),
        state=str(paths.state),
        credentials=str(paths.config / CREDENTIALS),
        profile=profile.reference,
        folders=(*((name, str(path)) for name, path in folders.items()), *extra),
    )


def system_address(profile: Profile) -> str:
    """Where the service listens: what the profile says; OLLAMA_HOST of a shell has no say here."""
    given = (profile.server.host, profile.server.port) if profile.server.address_given else None
    return choose_address({}, given).url.removeprefix("http://")


def shipped() -> dict[str, str]:
    """The files of `systemd/`: those of a system with the profile for one card of 24 GB."""
    from llmctl.system.shipped import load_shipped

    profile = load_shipped("24gb")
    made = unit.units(system_site(system_address(profile)), profile)
    return {**made, "llmctl.sysusers": unit.sysusers()}


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies of who installs, which may carry passwords."""
    found = {name: environ.get(name) or environ.get(name.lower()) for name in unit.PROXIES}
    return {name: value for name, value in found.items() if value}


def credentials(folder: Path, environ: Mapping[str, str]) -> Iterator[Action]:
    """Readable for their owner only, who hands them to the unit."""
    yield make_private(folder)
    for name, value in proxies(environ).items():
        yield write(folder / name, value + "\n", 0o600, secret=True)


def make_private(folder: Path) -> Action:
    def act() -> None:
        files.make_folder(folder)
        folder.chmod(0o700)

    return Action(Change("write", f"{folder}/", None, not folder.is_dir()), act)


def unit_files(site: Site, profile: Profile, folder: Path) -> tuple[Action, ...]:
    return tuple(write(folder / name, text) for name, text in unit.units(site, profile).items())


def enable(manager: Manager, units: tuple[Action, ...], folder: Path, site: Site, anew: bool) -> Iterator[Action]:
    """Let the manager know the files; start what does not run; start anew what runs with other settings."""
    written = any(action.change.due for action in units)
    yield changing(manager, "daemon-reload", due=written)
    wanted = folder / f"{site.wanted_by}.wants" / unit.TARGET
    runs = not written and wanted.is_symlink() and manager.show(unit.TARGET).active == "active"
    running = [name for name in (unit.ENGINE, unit.GUARD) if (written or anew) and runs_now(manager, name)]
    if running:
        yield changing(manager, "--no-block", "restart", *running)
    yield changing(manager, "enable", "--now", unit.TARGET, due=not runs)


def runs_now(manager: Manager, name: str) -> bool:
    return systemd.is_there() and manager.show(name).active not in {"inactive", "failed"}


def install_user(
    server: Server, profile: Profile, llmctl: tuple[str, ...], progress: Progress, dry_run: bool
) -> ServiceResult:
    """Units for the user's own manager. A server that llmctl started makes way for the unit's."""
    manager = Manager("user", server.environ)
    folder = systemd.units_folder("user", server.environ)
    site = user_site(server, profile, llmctl)
    units = unit_files(site, profile, folder)
    loose = [each.pid for each in server.loose()]
    actions = [*credentials(server.paths.config / CREDENTIALS, server.environ), *units]
    if loose:
        pids = ", ".join(map(str, loose))
        actions.append(run(("llmctl", "down", f"# pid {pids}"), partial(stop, server)))
    actions += enable(manager, units, folder, site, anew=False)
    steps = perform(actions, progress, dry_run)
    changed = any(step.due for step in steps)
    return ServiceResult("user", dry_run, changed, False, profile.reference, steps, lingering())


def stop(server: Server) -> None:
    server.stop()
    server.forget()


def lingering() -> tuple[str, ...]:
    """A user's services end with the last session unless the user lingers."""
    import pwd

    name = pwd.getpwuid(os.getuid()).pw_name
    if (Path("/var/lib/systemd/linger") / name).exists():
        return ()
    return (f"it ends when you log out, and starts when you log in; to keep it always: loginctl enable-linger {name}",)
