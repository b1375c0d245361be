"""Children that do not outlive llmctl: a command that has the terminal, and a server that is only tried.

Linux sends such a child SIGTERM when llmctl is gone, SIGKILL included. What the child itself started it must end
itself. A program with setuid rights loses the bond (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmctl.errors import CommandMissing, CommandNotRunnable
from llmctl.system.files import translated

PR_SET_PDEATHSIG = 1
# What a person or a supervisor sends to end or steer a command.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# Between the polite end and the other one.
GRACE_SECONDS = 10.0
TIMED_OUT = 124


@dataclass(frozen=True)
class Account:
    """Who a child runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status as a shell gives it (128 + n for a signal, 124 when its time was up)."""

    status: int
    timed_out: bool = False


def account(uid: int, gid: int | None = None, more_groups: Iterable[str] = ()) -> Account:
    """A user with all the groups that a login would give, and those of `more_groups` that exist here."""
    import grp

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        gid = uid if gid is None else gid
        return Account(str(uid), uid, gid, (gid,), "/")
    gid = entry.pw_gid if gid is None else gid
    more = [group.gr_gid for group in grp.getgrall() if group.gr_name in set(more_groups)]
    groups = sorted({*os.getgrouplist(entry.pw_name, gid), *more})
    return Account(entry.pw_name, uid, gid, tuple(groups), entry.pw_dir)


def invoking_account(environ: Mapping[str, str]) -> Account | None:
    """The user who ran sudo; None where llmctl does not run as root, or nobody else stands behind it."""
    uid, gid = environ.get("SUDO_UID", ""), environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not uid.isdigit() or int(uid) == 0:
        return None
    return account(int(uid), int(gid) if gid.isdigit() else None)


def check_runnable(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raises CommandMissing or CommandNotRunnable where a shell would say 127 or 126."""
    import shutil

    name = argv[0]
    if shutil.which(name, path=environ.get("PATH", os.defpath)):
        return
    if "/" in name and Path(name).exists():
        raise CommandNotRunnable(f"{name}: it cannot be executed")
    raise CommandMissing(f"{name}: command not found")


def run_in_foreground(
    argv: Sequence[str], environ: Mapping[str, str], who: Account | None, timeout_seconds: float | None
) -> Ended:
    """Run a command with this terminal and wait for its end.

    It stays in llmctl's process group: Ctrl-C and Ctrl-Z reach both, and a shell's job control sees one job. What the
    terminal sends the command has already; what another process sends to llmctl alone is passed on.
    """
    own = {**environ, "HOME": who.home, "USER": who.name, "LOGNAME": who.name} if who else environ
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    try:
        child = start_bound(argv, own, who=who, mask=before)
        return wait(child, timeout_seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait(child: subprocess.Popen[bytes], timeout_seconds: float | None) -> Ended:
    """Until the command ends. After its time: SIGTERM, then SIGKILL. The signals must be blocked."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    next_signal, timed_out = signal.SIGTERM, False
    while child.poll() is None:
        came = next_one(deadline)
        if came is None:
            child.send_signal(next_signal)
            # A stopped process acts on no SIGTERM.
            child.send_signal(signal.SIGCONT)
            next_signal, timed_out, deadline = signal.SIGKILL, True, time.monotonic() + GRACE_SECONDS
        elif came.si_signo != signal.SIGCHLD and came.si_code <= 0:
            # From a process: the kernel's own codes, of the terminal, are above 0.
            child.send_signal(came.si_signo)
    code = child.returncode
    status = 128 - code if code < 0 else code
    return Ended(TIMED_OUT if timed_out else status, timed_out)


def next_one(deadline: float | None) -> signal.struct_siginfo | None:
    """The next signal, or None at the deadline."""
    signals = {*PASSED_ON, signal.SIGCHLD}
    if deadline is None:
        return signal.sigwaitinfo(signals)
    return signal.sigtimedwait(signals, max(0.0, deadline - time.monotonic()))


def start_bound(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    who: Account | None = None,
    mask: Iterable[int] = (),
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that gets SIGTERM when this process is gone. With `log` it has a session of its own and writes
    there; without, it has this terminal. `mask` is the set of signals that it begins with blocked."""
    file = None
    if log is not None:
        with translated("write", log):
            file = log.open("wb")
    try:
        return _popen(argv, environ, who, bond(mask), file)
    except FileNotFoundError:
        raise CommandMissing(f"{argv[0]}: command not found") from None
    except OSError as error:
        raise CommandNotRunnable(f"{argv[0]}: {(error.strerror or str(error)).lower()}") from None
    finally:
        if file is not None:
            file.close()


def _popen(
    argv: Sequence[str],
    environ: Mapping[str, str],
    who: Account | None,
    prepare: Callable[[], None],
    log: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        env=dict(environ),
        stdin=None if log is None else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Files that the caller's shell opened for the command stay its own; Python's are closed on exec anyway.
        close_fds=log is not None,
        start_new_session=log is not None,
        user=who.uid if who else None,
        group=who.gid if who else None,
        extra_groups=who.groups if who else None,
        # Nothing else can set what must be set between fork and exec; llmctl has one thread here.
        preexec_fn=prepare,
    )


def bond(mask: Iterable[int]) -> Callable[[], None]:
    """What the child does before it becomes the command. Everything is looked up before the fork."""
    prctl = ctypes.CDLL(None).prctl
    parent, blocked = os.getpid(), set(mask)

    def inside() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    return inside
