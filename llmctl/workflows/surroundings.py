"""What the unit's server and this shell are and see, for `status`; it takes milliseconds unless GPUs are asked for."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import unit
from llmctl.core.surroundings import Surroundings
from llmctl.system import devices, process

if TYPE_CHECKING:
    from llmctl.server import Server
    from llmctl.system.systemd import Manager

NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "dri/renderD*", "kfd")
READ_WRITE = 0o6


@dataclass(frozen=True)
class Identity:
    """The effective user of a process and all its groups, by number."""

    user: int
    groups: frozenset[int]

    def may_open(self, node: os.stat_result) -> bool:
        """Whether a file's mode lets this one read and write it."""
        if self.user == 0:
            return True
        shift = 6 if node.st_uid == self.user else 3 if node.st_gid in self.groups else 0
        return node.st_mode >> shift & READ_WRITE == READ_WRITE


def of_unit(manager: Manager, pid: int, look_at_gpu: bool) -> Surroundings:
    """What /proc tells of the unit's server, and its log of the GPUs that it found."""
    who = identity(pid) if pid else None
    seen = process.read(pid) if pid else None
    if who is None or seen is None:
        return Surroundings(None, None, None, None, None, None)
    program = seen.argv[0] if seen.program == "ollama" else None
    found = found_by_unit(manager) if look_at_gpu else None
    nodes = tuple(str(path) for path, node in gpu_nodes() if who.may_open(node))
    return Surroundings(*named(who), seen.environ.get("PATH"), real(program), nodes, found)


def of_shell(server: Server, pid: int, look_at_gpu: bool) -> Surroundings:
    found = found_by_shell(server, pid) if look_at_gpu and pid else None
    who = Identity(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    path = server.environ.get("PATH")
    # The kernel knows more than the mode: access lists, and what a container takes from root.
    nodes = tuple(str(each) for each, _ in gpu_nodes() if os.access(each, os.R_OK | os.W_OK, effective_ids=True))
    return Surroundings(*named(who), path, real(shutil.which("ollama", path=path or "")), nodes, found)


def found_by_shell(server: Server, pid: int) -> tuple[str, ...] | None:
    from llmctl.workflows import gate

    runner = gate.runner_of(pid)
    return tuple(each.name for each in devices.list_devices(runner, server.environ)) if runner else None


def found_by_unit(manager: Manager) -> tuple[str, ...] | None:
    """The engine's `inference compute` lines since it started; None where the journal may not be read."""
    lines = manager.journal(unit.ENGINE, 2000)
    found: list[str] | None = None
    for line in lines:
        if "discovering available GPUs" in line:
            found = []
        elif found is not None and "inference compute" in line and "library=cpu" not in line:
            found.append(line.partition(" name=")[2].split(" ")[0])
    return None if found is None else tuple(found)


def gpu_nodes() -> Iterator[tuple[Path, os.stat_result]]:
    for pattern in NODES:
        for path in sorted(Path("/dev").glob(pattern)):
            try:
                yield path, path.stat()
            except OSError:
                continue


def real(program: str | None) -> str | None:
    return os.path.realpath(program) if program else None


def identity(pid: int) -> Identity | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    said = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    groups = {int(said["Gid"][1]), *map(int, said.get("Groups", []))}
    return Identity(int(said["Uid"][1]), frozenset(groups))


def named(who: Identity) -> tuple[str, tuple[str, ...]]:
    return user_name(who.user), tuple(sorted(map(group_name, who.groups)))


def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
