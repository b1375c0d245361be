"""Ollama's own unit, for who would install llmctl's beside it: whether it is in force, and what its server gets."""

from __future__ import annotations

from llmctl.core import unit
from llmctl.core.unit_text import environment_of
from llmctl.errors import Refused
from llmctl.system import process, systemd
from llmctl.system.systemd import SYSTEM_UNITS, Manager, UnitState

BOOT_TARGETS = ("default.target", "multi-user.target", "graphical.target")


def in_force(foreign: UnitState) -> bool:
    """Whether it runs, or would at the next boot."""
    wanted = any((SYSTEM_UNITS / f"{target}.wants" / unit.FOREIGN).is_symlink() for target in BOOT_TARGETS)
    return wanted or foreign.active not in {"inactive", "failed"}


def collision() -> Refused:
    return Refused(
        f"{unit.FOREIGN} is there already: two servers would want the same port and each the memory of the GPU, "
        "and their models would lie in two stores",
        f"keep it and add what it lacks: sudo llmctl install-service --adopt; or give llmctl its place: "
        f"sudo systemctl disable --now {unit.FOREIGN}, then the same command, with --import-models move for its models",
        code="foreign_unit",
    )


def foreign_environment(manager: Manager) -> dict[str, str]:
    """Ollama's own unit's, as its process has it, else as its files say; without what llmctl's drop-in adds."""
    shown = manager.show_all((unit.FOREIGN,), ("Environment", "MainPID")).get(unit.FOREIGN, {})
    pid = int(shown.get("MainPID") or 0)
    found = (process.read_environ(pid) if pid else {}) or systemd.variables(shown.get("Environment", ""))
    drop_in = systemd.own_text(SYSTEM_UNITS / f"{unit.FOREIGN}.d" / unit.DROP_IN)
    added = environment_of(drop_in) if drop_in else {}
    return {name: value for name, value in found.items() if name not in added}
