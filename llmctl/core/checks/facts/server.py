"""The server: who listens where, which processes there are, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmctl.core.serving import Lack

Answer = Literal["answers", "silent", "absent", "stranger"]
Owner = Literal["llmctl", "systemd", "foreign"]


@dataclass(frozen=True)
class Listener:
    """Who listens on the server's port; `pid` 0 where this user may not see it."""

    pid: int
    command: str
    user: str | None


@dataclass(frozen=True)
class ServerProcess:
    """One `ollama serve`. `environ` is empty where it is another user's; `state` is the kernel's letter."""

    pid: int
    user: str | None
    program: str
    state: str
    port: int | None
    store: str | None
    environ: Mapping[str, str]
    uptime_seconds: float | None


@dataclass(frozen=True)
class Runner:
    """One llama-server. `parent` is its server's pid where that is an `ollama serve`, else None: an orphan.

    `cpu_seconds` twice, `apart_seconds` between: whether it works. `health`: what it says on its own port.
    """

    pid: int
    user: str | None
    parent: int | None
    argv: tuple[str, ...]
    state: str
    resident_bytes: int | None
    gpu_bytes: int | None
    health: Literal["ok", "loading", "silent", "unasked"]
    uptime_seconds: float | None


@dataclass(frozen=True)
class ServerFacts:
    """The server of the profile. `words` says why it does not answer; `origin` is who decided the address.

    `expected`: the last `up` left it running, or a unit of llmctl is installed, so that it should be there.
    `lacks` are settings that differ from the profile, of the server's environment or its runner's arguments.
    `config` is what the server logged of its effective environment at its start, None where no log tells.
    """

    url: str
    origin: str
    answer: Answer
    words: str = ""
    version: str | None = None
    owner: Owner | None = None
    pid: int | None = None
    expected: bool = False
    listener: Listener | None = None
    processes: tuple[ServerProcess, ...] = ()
    runners: tuple[Runner, ...] = ()
    lacks: tuple[Lack, ...] = ()
    config: Mapping[str, str] | None = None
    store: str | None = None
    held: str | None = None

    @property
    def answers(self) -> bool:
        return self.answer == "answers"
