"""NVIDIA's driver as the kernel shows it: the module's version, its cards on the bus, its files below /dev."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

from llmctl.core.checks.facts.gpu import DeviceNode
from llmctl.system import access
from llmctl.system.access import Identity

PROC = Path("/proc")
DEV = Path("/dev")
PCI = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"
# Class codes that begin with 03 are displays and 3D controllers.
DISPLAY = "0x03"
# "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu Jan 23 ..."; the open module: "... for x86_64  570..."
MODULE_VERSION = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")


def module_version() -> str | None:
    """The version of the loaded kernel module; None where none is loaded."""
    with suppress(OSError):
        if match := MODULE_VERSION.search((PROC / "driver" / "nvidia" / "version").read_text()):
            return match[1]
    return None


def modules() -> frozenset[str]:
    """The driver's kernel modules that are loaded: nvidia, nvidia_uvm and so on."""
    with suppress(OSError):
        names = (line.partition(" ")[0] for line in (PROC / "modules").read_text().splitlines())
        return frozenset(name for name in names if name == "nvidia" or name.startswith("nvidia_"))
    return frozenset()


def cards_on_the_bus() -> int | None:
    """NVIDIA's cards on the PCI bus; None where the kernel does not show the bus."""
    try:
        devices = list(PCI.iterdir())
    except OSError:
        return None
    return sum(word(device / "vendor") == NVIDIA and word(device / "class").startswith(DISPLAY) for device in devices)


def word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def nodes(cards: int, who: Identity) -> tuple[DeviceNode, ...]:
    """The files that CUDA opens: one for each card, the control device, and the one of unified memory."""
    names = [*(f"nvidia{number}" for number in range(cards)), "nvidiactl", "nvidia-uvm"]
    return tuple(node(DEV / name, who) for name in names)


def node(path: Path, who: Identity) -> DeviceNode:
    import grp

    try:
        found = path.stat()
    except FileNotFoundError:
        return DeviceNode(str(path), False)
    except OSError:
        return DeviceNode(str(path), True)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    usable = access.may(who, path, access.READ | access.WRITE)
    return DeviceNode(str(path), True, f"{stat.S_IMODE(found.st_mode):04o}", group, usable)
