"""systemd: which of llmctl's units are installed, what its managers say of them, and what the journal holds.

Looking for units reads files only. Everything else runs systemctl, journalctl and their kin, with a time limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving, unit
from llmctl.core.unit import Scope
from llmctl.core.unit_text import MARK, environment_of
from llmctl.errors import LlmctlError
from llmctl.system.files import read_bounded
from llmctl.system.paths import SYSTEM, Paths

if TYPE_CHECKING:
    from llmctl.system.command import Finished

LIMIT_BYTES = 1 << 20
# A machine that boots, or loads a model, may be slow to answer.
ASK_SECONDS = 60.0
# A stop waits for TimeoutStopSec of each unit.
CHANGE_SECONDS = 120.0
SYSTEM_UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
# Of a unit, what UnitState says of it.
STATE = ("LoadState", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts")


@dataclass(frozen=True)
class Installed:
    """Units of llmctl. `environment` is that of the engine's unit, else of the guard's; `engine` says which."""

    scope: Scope
    units: Path
    engine: bool
    environment: Mapping[str, str]

    @property
    def profile(self) -> str | None:
        """What names the profile that the units were made of."""
        return self.environment.get("LLMCTL_PROFILE")

    @property
    def url(self) -> str | None:
        address = self.environment.get("OLLAMA_HOST")
        return f"http://{address}" if address else None


@dataclass(frozen=True)
class UnitState:
    """What a manager says of a unit. `status` is its STATUS= line; `pid` 0 while nothing runs."""

    load: str
    active: str
    sub: str
    result: str
    status: str
    pid: int
    restarts: int

    @classmethod
    def of(cls, said: Mapping[str, str]) -> UnitState:
        load, active, sub, result, status = (said.get(name, "") for name in STATE[:5])
        pid, restarts = (int(said.get(name) or 0) for name in STATE[5:])
        return cls(load, active, sub, result, status, pid, restarts)

    @property
    def waits(self) -> bool:
        return self.active in {"activating", "reloading"}


def units_folder(scope: Scope, environ: Mapping[str, str]) -> Path:
    if scope == "system":
        return SYSTEM_UNITS
    config = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '~')}/.config"
    return Path(config).expanduser() / "systemd" / "user"


def installed(paths: Paths, environ: Mapping[str, str]) -> Installed | None:
    """The service that uses these folders, if its units are there."""
    scope: Scope = "system" if paths == SYSTEM else "user"
    folder = units_folder(scope, environ)
    guard = own_text(folder / unit.GUARD)
    if guard is None:
        return None
    engine = own_text(folder / unit.ENGINE)
    environment = environment_of(engine or guard)
    if scope == "user" and environment.get("LLMCTL_STATE_DIR") != str(paths.state):
        return None
    return Installed(scope, folder, engine is not None, environment)


def system_installed() -> bool:
    """Whether the service of the whole machine is there."""
    return own_text(SYSTEM_UNITS / unit.GUARD) is not None


def own_text(path: Path) -> str | None:
    """The text of a file that llmctl wrote; None for another's, or none."""
    try:
        text = read_bounded(path, LIMIT_BYTES).decode("utf-8", "replace")
    except LlmctlError:
        return None
    return text if text.startswith(MARK) else None


def around(pid: int) -> bool:
    """Whether a process runs inside llmctl's engine unit, of the system or of a user."""
    return unit.ENGINE in group_of(pid).split("/")


def around_of(pid: int, scope: Scope) -> bool:
    """The same of one manager: of this machine's init, whose group is at the root, or of this user's below it."""
    uid = os.getuid()
    below = "system.slice" if scope == "system" else f"user.slice/user-{uid}.slice/user@{uid}.service"
    group = group_of(pid)
    return group.startswith(f"{group_of(1).removesuffix('/init.scope')}/{below}/") and around(pid)


def group_of(pid: int) -> str:
    """The control group in which systemd has a process; empty where it has ended (cgroups(7), /proc/PID/cgroup)."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    groups = dict(line.partition(":")[2].partition(":")[::2] for line in lines)
    return groups.get("name=systemd") or groups.get("", "")


def is_there() -> bool:
    """Whether systemd is the init of this machine (sd_booted)."""
    return RUNNING.is_dir()


class Manager:
    """systemctl and journalctl of the system, or of the user's own manager."""

    def __init__(self, scope: Scope, environ: Mapping[str, str]) -> None:
        self.scope = scope
        self.environ = {**environ, "SYSTEMD_PAGER": "", "LC_ALL": "C.UTF-8"}
        if scope == "user" and "XDG_RUNTIME_DIR" not in environ:
            # A shell of su or cron has none, though the manager is there.
            self.environ["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"

    def argv(self, *arguments: str) -> tuple[str, ...]:
        return ("systemctl", *(["--user"] if self.scope == "user" else []), *arguments)

    def change(self, *arguments: str) -> None:
        """Run systemctl; LlmctlError with its last words when it says no."""
        argv = self.argv(*arguments)
        done = run(argv, self.environ, CHANGE_SECONDS)
        if done.status != 0:
            last = done.tail[-1].strip() if done.tail else f"status {done.status}"
            raise LlmctlError(f"`{' '.join(argv)}` failed: {last[:300]}", self.shown_status(), code="systemctl_failed")

    def shown_status(self) -> str:
        return " ".join(self.argv("status", unit.TARGET, unit.ENGINE, unit.GUARD))

    def show(self, name: str) -> UnitState:
        """The state of a unit; no rights needed. LlmctlError where no manager answers."""
        return self.states(name)[name]

    def states(self, *names: str) -> dict[str, UnitState]:
        """The same of several units, in one call."""
        text, words = self._said(self.argv("show", "--property", ",".join(STATE), *names))
        shown = blocks(text, names)
        if not shown or not all("ActiveState" in block for block in shown.values()):
            raise LlmctlError(f"systemd does not answer: {words[-300:] or text[-300:]}", code="no_systemd")
        return {name: UnitState.of(block) for name, block in shown.items()}

    def journal_argv(self, name: str, lines: int, *, follow: bool = False) -> tuple[str, ...]:
        unit_flag = "--user-unit" if self.scope == "user" else "--unit"
        more = ("--follow",) if follow else ()
        return ("journalctl", unit_flag, name, "--output", "cat", "--no-pager", "--lines", str(lines), "--quiet", *more)

    def journal(self, name: str, lines: int, *more: str) -> list[str]:
        """The last lines of a unit, oldest first; empty where this user may not read them. `more` are options."""
        return self.output((*self.journal_argv(name, lines), *more)).splitlines()

    def show_all(self, names: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
        """Properties of several units by the name asked for, in one call; empty where no manager answers."""
        return blocks(self.output(self.argv("show", "--property", ",".join(("Id", *properties)), *names)), names)

    def output(self, argv: Sequence[str]) -> str:
        """What a program says on stdout; empty where it cannot be run, or does not end in time."""
        return self._said(argv)[0]

    def _said(self, argv: Sequence[str]) -> tuple[str, str]:
        """What a program says on stdout, and on stderr or why it said nothing."""
        import subprocess

        try:
            done = subprocess.run(
                argv, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", f"{argv[0]}: {error}"
        return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()

    def follow(self, name: str, lines: int) -> Iterator[str]:
        """The last lines of a unit, then each as it comes, without end."""
        from llmctl.system import command

        process = command.start(self.journal_argv(name, lines, follow=True), self.environ, None)
        try:
            yield from command.lines(process, "journalctl", None)
        finally:
            command.end_group(process)


def blocks(text: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """systemctl's properties of several units by the name asked for; empty where there is not one block for each."""
    found = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    return dict(zip(names, found, strict=True)) if len(found) == len(names) else {}


def variables(text: str) -> dict[str, str]:
    """systemctl's list of `NAME=value` (the property Environment), quoted as a shell does."""
    import shlex

    with suppress(ValueError):
        return dict(entry.partition("=")[::2] for entry in shlex.split(text))
    return {}


def run(argv: Sequence[str], environ: Mapping[str, str], limit_seconds: float) -> Finished:
    from llmctl.system import command

    return command.run(argv, environ=environ, timeout_seconds=limit_seconds)


def drifted(found: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[serving.Lack, ...]:
    """Variables of a unit, as found, that are not what the profile makes of them now."""
    return tuple(
        serving.Lack(name, value, found.get(name))
        for name, value in sorted(wanted.items())
        if name != serving.SETTINGS and found.get(name) != value
    )
