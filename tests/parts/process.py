"""Which processes a test left behind. A detached server has no parent to find it by, but it keeps the test's HOME."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def _with_home(home: Path) -> dict[int, str]:
    """pid -> command line of every other process whose HOME is `home`, read from Linux's /proc."""
    wanted = f"HOME={home}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = command.strip()
    return found


def end_leftovers(home: Path, patience_seconds: float = 10.0) -> list[str]:
    """The command lines of processes that still live in `home` after a while; they are killed."""
    deadline = time.monotonic() + patience_seconds
    while (left := _with_home(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid}: {command}" for pid, command in left.items()]
