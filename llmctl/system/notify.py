"""Two protocols of systemd, by hand: sd_notify, and native entries of the journal. Each is one datagram.

Neither ever fails the caller: a manager or a journal that does not listen is not the guard's fault to have.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

JOURNAL = Path("/run/systemd/journal/socket")
# Under the kernel's default limit of a datagram; what is longer is cut.
LONGEST_VALUE = 8 << 10


class Manager:
    """The service manager that started this process, where there is one (sd_notify(3))."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = watchdog_seconds(environ)

    def __bool__(self) -> bool:
        return bool(self._address)

    def tell(self, **fields: str) -> bool:
        """Send `READY="1"`, `STATUS="…"` and the like; a line break in a value becomes a space. False where it was not
        taken: a manager that is busy has no room for more than ten messages (net.unix.max_dgram_qlen)."""
        if not self._address:
            return True
        text = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in fields.items())
        return send(self._address, text.encode())


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often the manager wants to hear WATCHDOG=1, at the least; None where it does not."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(microseconds) / 1e6


def writes_to_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether a stream of this process ends in the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    with suppress(OSError):
        found = os.fstat(descriptor)
        return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def log(fields: Mapping[str, str], path: Path = JOURNAL) -> bool:
    """One entry with fields of its own. False where no journal took it."""
    return send(str(path), b"".join(field(name, value) for name, value in fields.items()))


def field(name: str, value: str) -> bytes:
    """The journal's native form: `NAME=value`, or with the length before it where the value has line breaks."""
    data = value.encode()[:LONGEST_VALUE]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


def send(address: str, data: bytes) -> bool:
    """One datagram to a unix socket; `@` begins the name of an abstract one."""
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            # A full queue must not stop the guard.
            out.setblocking(False)
            out.sendto(data, target)
    except OSError:
        return False
    return True
