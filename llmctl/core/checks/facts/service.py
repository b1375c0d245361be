"""systemd's view: llmctl's units and Ollama's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmctl.core.serving import Lack
from llmctl.core.surroundings import Difference

Whose = Literal["llmctl", "other", "masked", "absent"]


@dataclass(frozen=True)
class UnitFacts:
    """One unit as its manager has it. `enabled`: systemctl's UnitFileState. `restarts`: NRestarts.

    `whose` its file at `file` is. `edited` are lines of a file of llmctl's that are not what this llmctl writes, `+`
    before what is too much and `-` before what is missing; `drop_ins` are files of other authors. `environment` is
    what counts of that of its service. `words` are its last words, where it failed or was restarted.
    `watchdog`: how often the watchdog ended it in the last day, None where the journal may not be read.
    `since_boot_seconds`: from the start of the machine's services to its own; `discovery` what its log tells of the
    GPUs that it found at its start.
    """

    name: str
    file: str = ""
    whose: Whose = "absent"
    load: str = ""
    active: str = ""
    sub: str = ""
    result: str = ""
    enabled: str = ""
    restarts: int = 0
    pid: int = 0
    stale: bool = False
    edited: tuple[str, ...] = ()
    drop_ins: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    watchdog: int | None = 0
    since_boot_seconds: float | None = None
    discovery: Literal["gpu", "cpu", "failed"] | None = None
    discovery_words: str = ""
    passwords: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuardFacts:
    """What the guard last said, while it lives."""

    reason: str
    words: str
    degraded: bool
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceFacts:
    """`systemd` False: this machine has another init. `scope` None: llmctl's service is not installed.

    `units` are those of llmctl's service, `ollama` Ollama's own of the whole machine. `adopted`: the service is a
    guard beside that one, and `adoption` what the drop-in should give it and does not. `leftover`: what shows that a
    service is installed although a unit is missing.
    `drift` are settings of the unit's file that are not the profile's, `overridden` those that a drop-in of another
    author changes; `shell` settings of Ollama in the environment of who asks that its server does not have.
    `linger`: of the user whose units they are, None for the system's. `same_port`: Ollama's own unit wants the port
    of llmctl's. `llmctl` and `systemctl` are how those are called with the rights that the service needs,
    `reinstall` is the command that writes the units anew.
    """

    systemd: bool
    scope: Literal["system", "user"] | None = None
    adopted: bool = False
    leftover: str = ""
    units: Mapping[str, UnitFacts] = field(default_factory=dict)
    ollama: UnitFacts | None = None
    adoption: tuple[Lack, ...] = ()
    drift: tuple[Lack, ...] = ()
    overridden: tuple[Lack, ...] = ()
    shell: tuple[Difference, ...] = ()
    linger: bool | None = None
    user: str = ""
    same_port: bool = False
    guard: GuardFacts | None = None
    llmctl: str = "llmctl"
    systemctl: str = "sudo systemctl"
    reinstall: str = "llmctl install-service"
