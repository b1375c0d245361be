"""A real systemd as PID 1, in a container that systemd-nspawn runs over a root file system from the tests' cache.

Never on the machine itself. The network is the machine's, so a test takes free ports.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.parts import machine, rootfs
from tests.parts.namespace import Namespace

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
# Where cgroup 1 is still there, systemd keeps its units in a hierarchy of its own.
_PIDS = """\
top=/sys/fs/cgroup
[ -d $top/systemd ] && top=$top/systemd
find "$top$1" -name cgroup.procs -exec cat {} + | while read -r pid; do
  read -r name 2>/dev/null </proc/"$pid"/comm && echo "$pid $name"
done
"""
_INTERVAL_SECONDS = 0.02
_T = TypeVar("_T")


class BootError(RuntimeError):
    """systemd did not come up in time."""


class Container:
    """A Debian with systemd as PID 1 and llmctl installed. Units and files are its own, until `close`."""

    def __init__(self, namespace: Namespace, binds: Mapping[str, Path], folder: Path) -> None:
        self._namespace = namespace
        self._binds = binds
        self._folder = folder
        self._users: dict[str, int] = {}
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    @property
    def name(self) -> str:
        return self._namespace.name

    @property
    def init(self) -> int:
        """The container's init as the machine numbers it; 0 while the container is off."""
        return self._init

    @property
    def console(self) -> str:
        """What nspawn and systemd wrote, of every boot."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("console-*.log")))

    def boot(self, deadline_seconds: float = 60.0, *, settled: bool = True) -> None:
        """Returns when every unit has started or failed; a boot that hangs is ended and raised as BootError.

        Not `settled`: as soon as there is an init. In a thread that ends, the container would end with it
        (PR_SET_PDEATHSIG).
        """
        log_path = self._folder / f"console-{len(list(self._folder.glob('console-*.log')))}.log"
        options = ["--boot", "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off"]
        options += [f"--machine={self._namespace.name}"]
        options += [f"--bind-ro={outside}:{inside}" for inside, outside in self._binds.items()]
        nspawn = self._namespace.command("systemd-nspawn", "--quiet", "-D", self._namespace.root, *options)
        with log_path.open("wb") as log:
            # At TERM nspawn has the container shut down. Killed, it would leave the container running.
            self._nspawn = subprocess.Popen(
                [*machine.ENDS_WITH_TESTS, *nspawn],
                # One that tests share may be booted again by any of them.
                env=machine.ENVIRON,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + deadline_seconds
        try:
            self._init = self._await_init(deadline)
            if settled:
                self._await_started(deadline)
        except BootError:
            self._kill()
            raise

    def _await_init(self, deadline: float) -> int:
        assert self._nspawn
        while self._nspawn.poll() is None and time.monotonic() < deadline:
            if pid := _pid_one(self._nspawn.pid):
                return pid
            time.sleep(_INTERVAL_SECONDS)
        raise BootError(f"no init in the container:\n{self.console}")

    def _await_started(self, deadline: float) -> None:
        said = ""
        while self._nspawn and self._nspawn.poll() is None and (left := deadline - time.monotonic()) > 0:
            with suppress(subprocess.TimeoutExpired):
                asked = self.run("systemctl", "is-system-running", "--wait", check=False, timeout_seconds=left)
                said = asked.stdout.strip() or asked.stderr.strip()
                if said in ("running", "degraded"):
                    return
            time.sleep(_INTERVAL_SECONDS)
        raise BootError(f"systemd is not up ({said}):\n{self.console}")

    def run(
        self,
        *argv: str | Path,
        user: str | None = None,
        environ: Mapping[str, str] | None = None,
        check: bool = True,
        stdin: str | None = None,
        timeout_seconds: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as root or `user`, with a login's environment and `environ`, outside every unit."""
        assert self._init > 1, "the container is off"
        enter = ["nsenter", "--target", str(self._init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        identity = user or "root"
        become = ["setpriv", f"--reuid={identity}", f"--regid={identity}", "--init-groups", "--reset-env"]
        variables = {"PATH": _PATH, "LANG": "C.UTF-8", "TERM": "dumb", **self._session(user), **(environ or {})}
        done = subprocess.run(
            [*enter, *become, "env", *(f"{name}={value}" for name, value in variables.items()), *map(str, argv)],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def _session(self, user: str | None) -> dict[str, str]:
        if user not in self._users:
            return {}
        runtime = f"/run/user/{self._users[user]}"
        return {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}

    def add_user(self, name: str) -> None:
        """A person's account with a home and a systemd of its own that lingers: `systemctl --user` works in `run`."""
        self.run("useradd", "--create-home", "--user-group", "--shell", "/bin/bash", name)
        self._users[name] = int(self.run("id", "-u", name).stdout)
        self.run("loginctl", "enable-linger", name)
        manager = f"user@{self._users[name]}.service"
        self.wait(lambda: self.unit(manager)["ActiveState"] == "active", 30, f"{manager} to be active")

    def unit(self, name: str, *, user: str | None = None) -> dict[str, str]:
        """`systemctl show`; a property that stands there more than once has a line for each."""
        show = ["systemctl", *(["--user"] if user else []), "show", "--no-pager", name]
        found: dict[str, str] = {}
        for line in self.run(*show, user=user).stdout.splitlines():
            key, _, value = line.partition("=")
            found[key] = f"{found[key]}\n{value}" if key in found else value
        return found

    def pids(self, unit: str, program: str | None = None, *, user: str | None = None) -> list[int]:
        """Every process of the unit as the container numbers them; with `program` those of that name."""
        group = self.unit(unit, user=user).get("ControlGroup")
        if not group:
            return []
        said = self.run("sh", "-c", _PIDS, "sh", group, check=False).stdout
        found = {int(pid): name for pid, _, name in (line.partition(" ") for line in said.splitlines())}
        return sorted(pid for pid, name in found.items() if program in (None, name))

    def signal(self, pid: int, number: int) -> None:
        if pid <= 1:
            raise ValueError(f"no signal to pid {pid}")
        self.run("sh", "-c", 'kill -"$1" "$2"', "sh", str(int(number)), str(pid))

    def journal(self, unit: str | None = None, *, user: bool = False) -> list[dict[str, Any]]:
        """The entries of every boot, oldest first: of one unit (`user`: of a user's manager), or all."""
        self.run("journalctl", "--sync")
        chosen = [f"--unit={unit}"] if unit else []
        if unit and user:
            # What its manager says of it, and what it says itself; `--user-unit` shows only the caller's own.
            chosen = [f"USER_UNIT={unit}", "+", f"_SYSTEMD_USER_UNIT={unit}"]
        shown = self.run("journalctl", "--output=json", "--no-pager", "--all", *chosen)
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def journal_tail(self, lines: int = 100) -> str:
        if self._nspawn is None or self._nspawn.poll() is not None:
            return self.console
        shown = self.run("journalctl", "--no-pager", "--output=short-monotonic", f"--lines={lines}", check=False)
        return shown.stdout + shown.stderr

    def wait(self, condition: Callable[[], _T], seconds: float, what: str) -> _T:
        """The first true answer of `condition`. It may fail as long as what it asks is not there."""
        deadline = time.monotonic() + seconds
        last: Exception | None = None
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except (OSError, http.client.HTTPException) as error:
                last = error
            time.sleep(_INTERVAL_SECONDS)
        raise AssertionError(f"waited {seconds} s for {what} ({last})\n{self.journal_tail()}")

    def write(self, path: str | Path, text: str, mode: str = "0644") -> None:
        """Make the file and its folders, as root."""
        self.run("install", "-D", f"--mode={mode}", "/dev/stdin", path, stdin=text)

    def read(self, path: str | Path) -> str:
        return self.run("cat", path).stdout

    def poweroff(self, deadline_seconds: float = 60.0) -> None:
        """`systemctl poweroff`, to the end of the container; its files stay for the next `boot`."""
        assert self._nspawn, "the container is off"
        if self._nspawn.poll() is None:
            self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            tail = self.journal_tail()
            self._kill()
            raise AssertionError(f"still on {deadline_seconds} s after poweroff:\n{tail}\n{self.console}") from None
        self._off()

    def reboot(self) -> None:
        """Power off and boot again over the same files."""
        self.poweroff()
        self.boot()

    def _kill(self) -> None:
        """The end of a container that does not end itself: its init goes, and with it everything in it."""
        assert self._nspawn
        init = self._init or _pid_one(self._nspawn.pid)
        with suppress(psutil.NoSuchProcess):
            if init > 1:
                psutil.Process(init).kill()
        try:
            self._nspawn.wait(10)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._off()

    def _off(self) -> None:
        self._nspawn, self._init = None, 0

    def close(self, patience_seconds: float = 20.0) -> None:
        """Power off when it is on, and leave no process, mount or cgroup.

        A unit that does not stop is killed without a word: who wants to know calls `poweroff`.
        """
        try:
            if self._nspawn:
                with suppress(AssertionError, subprocess.TimeoutExpired):
                    self.poweroff(patience_seconds)
        finally:
            if self._nspawn:
                self._kill()
            self._namespace.close()


def _pid_one(nspawn: int) -> int:
    """The process below `nspawn` that is 1 in the container; 0 while there is none."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(nspawn).children(recursive=True):
            with suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                own = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                if len(own) > 1 and own[-1] == "1" and process.pid > 1:
                    return process.pid
    return 0


def start(folder: Path, binds: Mapping[str, Path], *, deadline_seconds: float = 60.0) -> Container:
    """Boot a container with `binds` (path inside -> path here, read-only); its console's output goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    container = Container(Namespace(rootfs.root()), binds, folder)
    try:
        container.boot(deadline_seconds)
    except BaseException:
        container.close()
        raise
    return container


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when containers can be run here (the root file system is made when need be), else the reason."""
    if os.geteuid() != 0:
        return "containers need root"
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        return f"not installed: {', '.join(sorted(missing))}; `make packages` gets them"
    try:
        Namespace(rootfs.root()).close()
    except OSError as error:
        return f"no container can be made here: {error}"
    return None
