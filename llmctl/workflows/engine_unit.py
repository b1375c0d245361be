"""What the engine's own unit of systemd is about, for a guard that finds no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core import unit
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.core.guard.facts import UnitPhase
    from llmctl.system.systemd import Manager, UnitState

# systemctl and journalctl are processes: they are asked at every so many looks.
LOOKS = 4
WORDS = 200


@dataclass(frozen=True)
class EngineUnit:
    """`words` say what it is about, for a person."""

    phase: UnitPhase
    words: str
    pid: int = 0


@dataclass
class UnitWatch:
    """The unit as it was asked last."""

    _known: EngineUnit | None = None
    _looks: int | None = None

    def forget(self) -> None:
        """A server answers: the next time that none does, the unit is asked at once."""
        self._known = self._looks = None

    def look(self, manager: Manager, looks: int) -> EngineUnit | None:
        """None where no manager answers. `looks` counts the guard's looks."""
        if self._looks is None or looks - self._looks >= LOOKS:
            self._looks = looks
            try:
                self._known = said(manager, manager.show(unit.ENGINE))
            except LlmctlError:
                self._known = None
        return self._known


def said(manager: Manager, state: UnitState) -> EngineUnit:
    """In words: what it waits for is the last line of its journal, where this user may read that."""
    if state.active == "failed":
        return EngineUnit("failed", f"{unit.ENGINE} has failed: {state.result}")
    if state.sub == "auto-restart":
        return EngineUnit("starting", f"{unit.ENGINE} has ended and starts anew")
    if state.waits:
        last = (manager.journal(unit.ENGINE, 1) or [""])[-1].strip()
        detail = last[:WORDS] or state.status or state.sub
        phase: UnitPhase = "awaiting_gpu" if unit.AWAITS_GPU in last else "starting"
        return EngineUnit(phase, f"{unit.ENGINE} is starting: {detail}")
    if state.active == "active":
        return EngineUnit("up", f"{unit.ENGINE} has started and its server does not answer", state.pid)
    return EngineUnit("stopped", f"{unit.ENGINE} is {'not installed' if state.load == 'not-found' else 'stopped'}")
