"""systemd's view: llmctl's units and Ollama's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UnitFacts:
    """One unit as its manager has it. `enabled`: systemctl is-enabled's word. `edited`: the file is not what
    llmctl wrote for this profile; `drop_ins` are files of other authors. `restarts`: NRestarts."""

    name: str
    load: str
    active: str
    sub: str
    result: str
    enabled: str
    restarts: int
    words: str = ""
    edited: bool = False
    drop_ins: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    watchdog_events: int = 0


@dataclass(frozen=True)
class ServiceFacts:
    """`systemd` False: this machine has another init. `scope` None: llmctl's service is not installed.

    `last_owner_systemd`: the last `up` went through a unit. `linger`: of the user whose units they are, None for
    the system's. `reinstall` is the command that writes the units anew.
    """

    systemd: bool
    scope: str | None = None
    last_owner_systemd: bool = False
    units: Mapping[str, UnitFacts] = field(default_factory=dict)
    ollama: UnitFacts | None = None
    linger: bool | None = None
    drift: tuple[tuple[str, str, str | None], ...] = ()
    shell_differences: tuple[tuple[str, str, str], ...] = ()
    guard_reason: str | None = None
    guard_words: str | None = None
    degraded: bool | None = None
    reinstall: str = "llmctl install-service"
