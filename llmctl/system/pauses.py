"""Why the guard keeps its hands off: a person holds it, or a command has been given the GPU.

Both lie in the runtime folder. A hold is a file that stays until it is taken back or its time is up. A lease lives
exactly as long as the process that has it: it keeps a kernel lock, which goes when the process does, however it
ends, so that a note without its lock says that the lease died.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import LlmctlError, Refused
from llmctl.system import clocks
from llmctl.system.files import atomic_write, lock_held, make_folder, read_bounded, translated

HOLD = "hold.json"
LEASE = "lease.json"
LOCK = "lease.lock"
LIMIT_BYTES = 64 << 10


@dataclass(frozen=True)
class Hold:
    """`by` says what asked for it (`down`, `guard --hold`, `engine upgrade`). Times are of the wall clock;
    `until_seconds` None: until it is taken back.

    The wall clock may be set back by a day meanwhile, and the time since the boot begins anew with the next one: a hold
    ends as soon as one of the two says so.
    """

    by: str
    since_seconds: float
    until_seconds: float | None = None
    until_boot_seconds: float | None = None

    @property
    def left_seconds(self) -> float | None:
        """How long it still holds, 0 when it is over; None: until it is taken back."""
        if self.until_seconds is None:
            return None
        left = self.until_seconds - time.time()
        if self.until_boot_seconds is not None:
            left = min(left, self.until_boot_seconds - clocks.since_boot_seconds())
        return max(0.0, left)


@dataclass(frozen=True)
class Lease:
    """A command that has the GPU. `alive` False: its holder ended without giving it back."""

    command: str
    pid: int
    since_seconds: float
    alive: bool = True


def hold(runtime: Path, by: str, seconds: float | None = None) -> Hold:
    """Pause the guard, for `seconds` or until `release`."""
    now = time.time()
    made = Hold(by, now)
    if seconds is not None:
        made = Hold(by, now, now + seconds, clocks.since_boot_seconds() + seconds)
    _write(runtime / HOLD, asdict(made))
    return made


def release(runtime: Path) -> bool:
    """End the hold. Whether there was one."""
    with translated("delete", runtime / HOLD):
        try:
            (runtime / HOLD).unlink()
        except FileNotFoundError:
            return False
    return True


def held(runtime: Path) -> Hold | None:
    """The hold in force; None where there is none, or its time is up."""
    data = _read(runtime / HOLD)
    try:
        times = (data.get("until_seconds"), data.get("until_boot_seconds"))
        until, until_boot = (None if each is None else float(each) for each in times)
        found = Hold(str(data["by"]), float(data["since_seconds"]), until, until_boot)
    except (KeyError, TypeError, ValueError):
        return None
    return None if found.left_seconds == 0 else found


def leased(runtime: Path) -> Lease | None:
    """The lease, alive or dead; None where there is none."""
    data = _read(runtime / LEASE)
    try:
        note = Lease(str(data["command"]), int(data["pid"]), float(data["since_seconds"]))
    except (KeyError, TypeError, ValueError):
        return None
    return Lease(note.command, note.pid, note.since_seconds, alive=_locked(runtime / LOCK, note.pid))


def bury(runtime: Path) -> None:
    """Forget a lease whose holder died. One that lives is left alone."""
    found = leased(runtime)
    if found is None or not found.alive:
        with suppress(FileNotFoundError), translated("delete", runtime / LEASE):
            (runtime / LEASE).unlink()


@contextmanager
def lease(runtime: Path, command: str) -> Iterator[Lease]:
    """Have the lease while inside. Refused where another command has it.

    The lock is not inherited by children, so that it is free as soon as llmctl itself is gone.
    """
    make_folder(runtime)
    with translated("lock", runtime / LOCK):
        descriptor = os.open(runtime / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        whose = runtime.stat()
        if os.geteuid() == 0 and whose.st_uid != 0:
            # Root's lease beside a guard that is another user: it must be able to see the lock.
            os.fchown(descriptor, whose.st_uid, whose.st_gid)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = leased(runtime)
            words = f"{other.command} (pid {other.pid})" if other else "another command"
            raise Refused(f"{words} has the GPU already", "llmctl status", code="leased") from None
        made = Lease(command, os.getpid(), time.time())
        _write(runtime / LEASE, {"command": made.command, "pid": made.pid, "since_seconds": made.since_seconds})
        try:
            yield made
        finally:
            with suppress(FileNotFoundError):
                (runtime / LEASE).unlink()
    finally:
        os.close(descriptor)


def _locked(path: Path, pid: int) -> bool:
    """Whether the lock is held. Of another user's lease, whose lock only they may open, the process `pid` tells:
    whoever could open the file could hold the lock too, and keep everybody else from the GPU."""
    known = lock_held(path)
    return Path(f"/proc/{pid}").exists() if known is None else known


def _write(path: Path, document: dict[str, Any]) -> None:
    atomic_write(path, json.dumps({"schema": 1, **document}).encode())
    with translated("change", path):
        # Everybody may know, whatever the shell's umask is.
        path.chmod(0o644)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_bounded(path, LIMIT_BYTES))
    except (LlmctlError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
