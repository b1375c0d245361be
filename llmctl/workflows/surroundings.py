"""What the unit's server and this shell are and see, for `status`; it takes milliseconds unless GPUs are asked for."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import unit
from llmctl.core.surroundings import Surroundings
from llmctl.system import access, devices, process

if TYPE_CHECKING:
    from llmctl.server import Server
    from llmctl.system.systemd import Manager

DEVICES = Path("/dev")
NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "dri/renderD*", "kfd")


def of_unit(manager: Manager, pid: int, look_at_gpu: bool) -> Surroundings:
    """What /proc tells of the unit's server, and its log of the GPUs that it found."""
    who = access.of_process(pid) if pid else None
    seen = process.read(pid) if pid else None
    if who is None or seen is None:
        return Surroundings(None, None, None, None, None, None)
    program = seen.argv[0] if seen.program == "ollama" else None
    found = found_by_unit(manager) if look_at_gpu else None
    return Surroundings(*named(who), seen.environ.get("PATH"), real(program), open_nodes(who), found)


def of_shell(server: Server, pid: int, look_at_gpu: bool) -> Surroundings:
    found = found_by_shell(server, pid) if look_at_gpu and pid else None
    who = access.myself()
    path = server.environ.get("PATH")
    return Surroundings(*named(who), path, real(shutil.which("ollama", path=path or "")), open_nodes(who), found)


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


def open_nodes(who: access.Identity) -> tuple[str, ...] | None:
    """The GPUs' device files that `who` may read and write; None where that of one cannot be known."""
    found = []
    for path in (each for pattern in NODES for each in sorted(DEVICES.glob(pattern))):
        try:
            allowed = access.may(who, path, access.READ | access.WRITE)
        except OSError:
            continue
        if allowed is None:
            return None
        if allowed:
            found.append(str(path))
    return tuple(found)


def real(program: str | None) -> str | None:
    return os.path.realpath(program) if program else None


def named(who: access.Identity) -> tuple[str, tuple[str, ...]]:
    return user_name(who.uid), tuple(sorted(map(group_name, who.groups)))


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
