"""Processes: start one that outlives us, know it again, end it.

Reads /proc directly, because `status` must know in a millisecond what psutil takes 40 ms to import for.
Processes that llmctl starts carry a marker in their environment. Children inherit it, so that a runner whose
server was killed is still known to be ours; a reused process id never is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from llmctl.core.serving import MARKER
from llmctl.errors import EngineMissing

POLL_SECONDS = 0.02
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A running process. `environ` is empty where it belongs to another user."""

    pid: int
    parent_pid: int
    argv: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name if self.argv else ""

    def argument(self, name: str) -> str | None:
        """The value after `name` in argv."""
        if name not in self.argv[:-1]:
            return None
        return self.argv[self.argv.index(name) + 1]


def spawn(argv: Sequence[str], environ: Mapping[str, str], log: Path) -> int:
    """Start a process in a session of its own, writing to the end of `log`; its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        return os.posix_spawn(argv[0], list(argv), dict(environ), file_actions=actions, setsid=True)
    except OSError as error:
        raise EngineMissing(f"cannot run {argv[0]}: {error.strerror}", "llmctl engine list") from None


def become(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by another program."""
    try:
        os.execve(argv[0], list(argv), dict(environ))  # noqa: S606 - no shell
    except OSError as error:
        raise EngineMissing(f"cannot run {argv[0]}: {error.strerror}", "llmctl engine list") from None


def read(pid: int) -> Process | None:
    """The process, or None when it has ended (a zombie has) or was never there."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        # The name stands in parentheses and may contain any character, a parenthesis too.
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state == "Z":
            reap(pid)
            return None
        argv = strings(PROC / str(pid) / "cmdline")
        return Process(pid, int(parent), tuple(argv), read_environ(pid))
    except (OSError, ValueError):
        return None


def program_path(pid: int) -> Path:
    """The program that a process runs. Of another user's only the name that it was started by can be known."""
    try:
        return (PROC / str(pid) / "exe").readlink()
    except OSError:
        seen = read(pid)
        return Path(seen.argv[0] if seen and seen.argv else "")


def reap(pid: int) -> None:
    """Collect the exit status of a child of ours, so that it does not stay a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def read_environ(pid: int) -> dict[str, str]:
    try:
        return dict(entry.split("=", 1) for entry in strings(PROC / str(pid) / "environ") if "=" in entry)
    except OSError:
        return {}


def strings(path: Path) -> list[str]:
    """A /proc file of NUL-terminated strings."""
    return path.read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")


def having(file: Literal["environ", "cmdline"], text: str) -> Iterator[Process]:
    """Every living process in whose /proc file `text` stands. Only those are read whole: this is on status's path."""
    wanted = os.fsencode(text)
    for entry in os.listdir(PROC):  # noqa: PTH208 - names are enough
        if not entry.isdigit():
            continue
        try:
            with open(f"{PROC}/{entry}/{file}", "rb", buffering=0) as content:  # noqa: PTH123
                found = wanted in content.read()
        except OSError:
            continue
        if found and (process := read(int(entry))) is not None:
            yield process


def marked(owner: str) -> list[Process]:
    """Every living process that carries `owner` as its marker, servers before their runners."""
    found = having("environ", f"{MARKER}={owner}")
    return sorted((p for p in found if p.environ.get(MARKER) == owner), key=lambda p: p.pid)


def runner_of(weights_digest: str, server_pid: int | None) -> Process | None:
    """The llama-server by which a server serves a blob. None where the server is not known: another one may serve the
    same.

    The blob's name is in its argv: ollama v0.34.0 llm/llama_server.go starts it with `--model <blob>`.
    """
    if server_pid is None:
        return None
    blob = "sha256-" + weights_digest.removeprefix("sha256:")
    for process in having("cmdline", blob):
        if process.program != "llama-server" or server_pid != process.parent_pid:
            continue
        if (process.argument("--model") or "").endswith(blob):
            return process
    return None


def uptime_seconds(pid: int) -> float | None:
    """How long a process has been running."""
    try:
        ticks = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int | None:
    """Resident set size of a process."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def stop(pid: int, grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL when the process is still there after the grace. Returns when it has ended."""
    for number, wait in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
            # One that is stopped hears of nothing else before it goes on.
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        if wait_until_ended(pid, wait):
            return


def wait_until_ended(pid: int, limit_seconds: float) -> bool:
    deadline = time.monotonic() + limit_seconds
    while read(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def listener(port: int) -> Process | None:
    """The process that listens on a TCP port of this machine, where the kernel lets us see it."""
    sockets = {f"socket:[{each.inode}]" for each in _listening(port)}
    for name in os.listdir(PROC) if sockets else ():  # noqa: PTH208
        if name.isdigit() and any(link in sockets for link in _open_files(name)):
            return read(int(name))
    return None


def server_at(port: int) -> Process | None:
    """The Ollama that answers at a port of this machine: who listens there, and where that is another user's to see,
    the only `ollama serve` of the user to whom the socket belongs."""
    found = listener(port)
    if found is not None:
        return found
    users = {each.user for each in _listening(port)}
    servers = [one for one in having("cmdline", "serve") if one.program == "ollama" and one.argv[1:2] == ("serve",)]
    theirs = [one for one in servers if _user(one.pid) in users and not any(_open_files(str(one.pid)))]
    return theirs[0] if len(theirs) == 1 else None


def listening_user(port: int) -> int | None:
    """To whom the socket that listens on a port of this machine belongs; None where none does."""
    return next((each.user for each in _listening(port)), None)


def _user(pid: int) -> int | None:
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def _open_files(pid: str) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing where it is another user's."""
    folder = f"{PROC}/{pid}/fd"
    try:
        descriptors = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return
    for each in descriptors:
        # One that is closed meanwhile must not hide the others.
        with suppress(OSError):
            yield os.readlink(f"{folder}/{each}")  # noqa: PTH115


@dataclass(frozen=True)
class _Listening:
    address: str
    inode: str
    user: int


def listening_addresses(port: int) -> tuple[str, ...]:
    """Every address at which something listens on a port, as a program binds it: 0.0.0.0 and :: are all of them."""
    return tuple(sorted({_address(each.address) for each in _listening(port)}))


def _address(text: str) -> str:
    """An address of /proc/net/tcp: words of four bytes, each in this machine's order."""
    import ipaddress
    import sys

    data = bytes.fromhex(text)
    words = [data[start : start + 4] for start in range(0, len(data), 4)]
    return str(ipaddress.ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)))


def _listening(port: int) -> Iterator[_Listening]:
    """The sockets that listen on a port: proc(5), /proc/net/tcp."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield _Listening(fields[1].rpartition(":")[0], fields[9], int(fields[7]))


def port_taken(host: str, port: int) -> bool:
    """Whether a server could not bind this address now."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def free_port(host: str) -> int:
    """A TCP port that nothing uses now, below the range the kernel gives to outgoing connections."""
    import random
    import socket

    for _ in range(200):
        port = random.randint(20000, 31999)  # noqa: S311 - not a secret
        if not port_taken(host, port):
            return port
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
