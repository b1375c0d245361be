"""What a path lies on: the file system, and the disk below it, as the kernel tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
DEVICES = Path("/sys/dev/block")
# Disks of virtual machines say that they turn, whatever is below them.
VIRTUAL = ("vd", "xvd", "loop", "ram", "zram", "nbd", "sr", "pmem")
VIRTUAL_MODELS = ("qemu", "vmware", "virtual", "vbox", "msft", "google", "amazon")


@dataclass(frozen=True)
class Mount:
    """`kind` is the file system's type, `device` its `major:minor`, `source` what was mounted."""

    point: str
    kind: str
    source: str
    device: str
    read_only: bool


def of(path: Path) -> Mount | None:
    """The mount that has `path`, of which the nearest folder that is there counts. None where nothing tells."""
    there = os.path.realpath(path)
    found = None
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        mount = parsed(line)
        # Of two at one place the later one is seen.
        if mount is not None and within(there, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def parsed(line: str) -> Mount | None:
    """One line of mountinfo: proc(5)."""
    left, separator, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 3:
        return None
    read_only = "ro" in fields[5].split(",") or "ro" in rest[2].split(",")
    return Mount(plain(fields[4]), rest[0], plain(rest[1]), fields[2], read_only)


def plain(text: str) -> str:
    """Blanks and their like stand there as octal numbers."""
    for number in ("040", "011", "012", "134"):
        text = text.replace(f"\\{number}", chr(int(number, 8)))
    return text


def within(path: str, point: str) -> bool:
    return path == point or path.startswith(f"{point.rstrip('/')}/")


def rotational(device: str) -> bool | None:
    """Whether the disk `major:minor` turns; None for what is no disk of this machine, or a virtual one."""
    folder = Path(os.path.realpath(DEVICES / device))
    # A partition has no queue of its own.
    disk = folder if (folder / "queue").is_dir() else folder.parent
    if disk.name.startswith(VIRTUAL):
        return None
    try:
        turns = (disk / "queue" / "rotational").read_text().strip() == "1"
    except OSError:
        return None
    return None if turns and virtual(disk) else turns


def virtual(disk: Path) -> bool:
    try:
        words = " ".join((disk / "device" / name).read_text() for name in ("vendor", "model")).lower()
    except OSError:
        return False
    return any(name in words for name in VIRTUAL_MODELS)
