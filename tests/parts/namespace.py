"""Where a container's files and cgroups are: seen by nobody else, and gone with the test."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOUNTS = """\
set -e
mount --make-rprivate /
# nspawn wants a /run in memory.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o lowerdir="$1",upperdir=/run/upper,workdir=/run/work overlay /run/root
echo ready
exec cat
"""
_JOINS = 'for procs in $CGROUPS; do echo $$ > "$procs"; done; unset CGROUPS; exec "$@"'


class Namespace:
    """A mount namespace with a writable `root` over a root file system, and cgroups beside nobody else's.

    What is written into `root` stays in memory. It is there until `close`, or until the process that made it ends.
    """

    root = Path("/run/root")

    def __init__(self, lower: Path) -> None:
        self.name = f"llmctl-{uuid.uuid4().hex[:12]}"
        self._count = itertools.count()
        self._cgroups: list[Path] = []
        command = ["unshare", "--mount", "sh", "-c", _MOUNTS, "sh", str(lower)]
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        assert self._holder.stdout
        if self._holder.stdout.readline() != b"ready\n":
            _, said = self._holder.communicate()
            raise OSError(f"no overlay in a mount namespace of its own: {said.decode(errors='replace').strip()}")

    def command(self, *argv: str | Path) -> list[str]:
        """`argv` as it runs within. The same process goes through all of it, so a Popen's pid is that of `argv`.

        Two systemds in one cgroup would share the cgroup of every unit, and what they do to it.
        """
        # The same name in each hierarchy, as systemd expects it.
        name = f"{self.name}-{next(self._count)}"
        own = [folder / name for folder in _hierarchies()]
        for folder in own:
            folder.mkdir()
        self._cgroups += own
        enter = ["nsenter", "--target", str(self._holder.pid), "--mount"]
        joined = f"CGROUPS={' '.join(str(folder / 'cgroup.procs') for folder in own)}"
        return [*enter, "env", joined, "sh", "-c", _JOINS, "sh", *map(str, argv)]

    def close(self, patience_seconds: float = 10.0) -> None:
        """Raise OSError when something still runs within."""
        self._holder.communicate()
        deadline = time.monotonic() + patience_seconds
        while left := [folder for folder in self._cgroups if not remove_cgroup(folder)]:
            if time.monotonic() > deadline:
                raise OSError(f"processes still run in {left[0]}")
            time.sleep(0.02)


@contextmanager
def namespace(lower: Path) -> Iterator[Namespace]:
    opened = Namespace(lower)
    try:
        yield opened
    finally:
        opened.close()


def remove_cgroup(cgroup: Path) -> bool:
    """False while a process is in it, or in one below it."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106
    return not cgroup.exists()


def _hierarchies() -> list[Path]:
    """This process's cgroup in each hierarchy that a systemd keeps its units in: one of its own, cgroup 2, or both."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, name, path = line.split(":", 2)
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if (name == "" and kind == "cgroup2") or (name == "name=systemd" and kind == "cgroup" and name in options):
                found.append(Path(mount[4]) / path.removeprefix(mount[3]).lstrip("/"))
                break
    return found
