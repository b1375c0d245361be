"""The server: who listens where, which processes there are, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmctl.core.server_state import Owner
from llmctl.core.serving import Lack
from llmctl.core.unit import Scope

Answer = Literal["answers", "silent", "absent", "stranger"]
STOPPED = frozenset({"T", "t"})


@dataclass(frozen=True)
class Listener:
    """Who listens on the server's port; `pid` 0 where this user may not see it."""

    pid: int
    program: str
    user: str | None

    @property
    def words(self) -> str:
        whose = f" of {self.user}" if self.user else ""
        return f"pid {self.pid}{whose}: {self.program}" if self.pid else f"a program{whose} that this user may not see"


@dataclass(frozen=True)
class ServerProcess:
    """One `ollama serve`. `environ` is empty where it is another user's; `state` is the kernel's letter.

    `program` is the file it runs; `replaced`: that file is not the one on the disk any more. `port` and `host` as it
    was told, 11434 where nothing was said; None where its environment cannot be read. `mine`: llmctl started it.
    `unit` runs it, of the manager of `scope`; `parent`: the process that started it, or 1 where that has ended.
    `here`: it is not in a container. `apart`: it is this user's, with a HOME of its own, as private servers are, so
    that it was meant to be a second one.
    """

    pid: int
    user: str | None
    program: str
    state: str
    port: int | None
    store: str | None
    environ: Mapping[str, str]
    uptime_seconds: float | None
    mine: bool = False
    here: bool = True
    apart: bool = False
    replaced: bool = False
    unit: str | None = None
    scope: Scope = "system"
    parent: int = 1

    @property
    def stopped(self) -> bool:
        return self.state in STOPPED


@dataclass(frozen=True)
class Runner:
    """One llama-server of Ollama's. `parent` is its server's pid where that is an `ollama serve`, else None: an orphan.

    `weights_digest` is what it serves. `health`: what it says on its own port, `worked`: whether it used CPU time while
    it was asked, None where it answered. `mine`: it carries llmctl's marker. `apart`: as of a server.
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
    weights_digest: str | None = None
    worked: bool | None = None
    mine: bool = False
    apart: bool = False

    @property
    def stopped(self) -> bool:
        return self.state in STOPPED


@dataclass(frozen=True)
class Program:
    """The `ollama` that a person's shell would run, with its version."""

    path: str
    version: str


@dataclass(frozen=True)
class ServerFacts:
    """The server of the profile. `words` says why it does not answer; `origin` is who decided the address.

    `expected`: the last `up` left it running, a unit of llmctl is installed, or the models are pinned, so that it
    should be there; `ended`: `llmctl down` ended it. `lacks` are settings that differ from the profile, of the
    server's environment or its runner's arguments; None where neither can be seen. `up` and `down` are the commands
    that bring this profile up and take it down, with the rights that they need; `held` says why the guard keeps its
    hands off. `cli` is the `ollama` on PATH, where its commands would reach this server. `forwarded`: the listener is
    no server but hands on to one, of another machine or of a container; nothing of this machine is known to be its.
    `root` is how llmctl is called with root's rights, `which` the option that names the profile there.
    """

    url: str
    origin: str
    answer: Answer
    words: str = ""
    version: str | None = None
    owner: Owner | None = None
    pid: int | None = None
    expected: bool = False
    ended: bool = False
    listener: Listener | None = None
    processes: tuple[ServerProcess, ...] = ()
    runners: tuple[Runner, ...] = ()
    lacks: tuple[Lack, ...] | None = None
    store: str | None = None
    held: str | None = None
    up: str = "llmctl up"
    down: str = "llmctl down"
    cli: Program | None = None
    forwarded: bool = False
    root: str = "sudo llmctl"
    which: str = ""

    @property
    def answers(self) -> bool:
        return self.answer == "answers"

    @property
    def process(self) -> ServerProcess | None:
        """The server's own process, where it can be seen."""
        return next((found for found in self.processes if found.pid == self.pid), None)

    @property
    def orphans(self) -> tuple[Runner, ...]:
        return tuple(runner for runner in self.runners if runner.parent is None)

    def runner_of(self, weights_digest: str | None) -> Runner | None:
        """The runner by which this server serves these weights."""
        mine = (one for one in self.runners if self.pid is not None and one.parent == self.pid)
        return next((one for one in mine if one.weights_digest == weights_digest), None)
