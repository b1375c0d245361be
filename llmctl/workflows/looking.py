"""One cheap look at the server, the runners and the GPUs: no token is generated, and nothing is changed.

What rarely changes is remembered and asked again only when something says that it did: process numbers by the time at
which their process started, the alias by the time of its manifest, a runner's buffer lines by the runner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.guard.facts import Errand, Loaded, Look, Pause, ServerAnswer, ours
from llmctl.core.placement import Witnesses
from llmctl.core.server_state import Owner
from llmctl.errors import LlmctlError, PortInUse, ServerNotRunning, ServerUnreachable
from llmctl.system import clocks, gpu_health, process, vitals
from llmctl.system.systemd import Manager
from llmctl.workflows.engine_unit import EngineUnit, UnitWatch
from llmctl.workflows.keep_alive import KeepAlives
from llmctl.workflows.naming import Names
from llmctl.workflows.pause import hands_off
from llmctl.workflows.runners import STOPPED, asked, of_others
from llmctl.workflows.watched import Watched

if TYPE_CHECKING:
    from llmctl.client import Client, LoadedModel
    from llmctl.core.address import Address
    from llmctl.server import Running, Server
    from llmctl.system.gpu_health import GpuHealth
    from llmctl.system.vitals import Vitals

ANSWER_SECONDS = 10.0
# Every so many looks what is remembered is asked again.
AFRESH_LOOKS = 12
# NVML takes milliseconds or a large part of a second: it is asked as often as leaves it this share of a core.
GPU_SHARE = 0.0005


@dataclass(frozen=True)
class ServerSeen:
    """The server at this look."""

    answer: ServerAnswer
    words: str = ""
    process: Vitals | None = None
    loaded: tuple[LoadedModel, ...] = ()


@dataclass
class Lookout:
    """Looks at one server. `url` may change when llmctl starts the server anew on another port."""

    server: Server
    client: Callable[[str], Client]
    address: Address
    models: list[Watched]
    clock: Callable[[], float] = time.monotonic
    running: Running | None = None
    owner: Owner = "foreign"
    _known_owner: Owner | None = None
    _identity: str | None = None
    _looks: int = 0
    _slept: float = field(default_factory=clocks.slept_seconds)
    _gpu: GpuHealth | None = None
    _gpu_due: float = 0.0
    _names: Names = field(default_factory=Names)
    _others: tuple[object, ...] | None = None
    _runners: set[str] = field(default_factory=set)
    _errand: Errand | None = None
    _unit: UnitWatch = field(default_factory=UnitWatch)

    def __post_init__(self) -> None:
        self._keep_alives = KeepAlives(self.clock)

    def look(self, errand: Errand | None = None, *, slots: bool = False) -> list[Look]:
        """One look for each model. `slots`: ask the runners whether a request is in work; they log that."""
        slept = clocks.slept_seconds()
        resumed, self._slept = clocks.resumed(self._slept, slept), slept
        self._looks += 1
        common = Look(self.clock(), self.owner, "absent", resumed=resumed, errand=errand)
        if (pause := self.pause(errand)) is not None:
            return [replace(common, pause=pause) for _ in self.models]
        seen = self._look_at_server()
        found = replace(
            common,
            owner=self.owner,
            server=seen.answer,
            server_words=seen.words,
            server_identity=self._identity,
            server_state=seen.process.state if seen.process else None,
            server_cpu_seconds=seen.process.cpu_seconds if seen.process else None,
            server_age_seconds=seen.process.age_seconds if seen.process else None,
        )
        if seen.answer == "absent" and (unit := self._of_unit()) is not None:
            began = vitals.read(unit.pid) if unit.pid else None
            age = began.age_seconds if began else None
            found = replace(found, unit=unit.phase, server_words=unit.words, server_age_seconds=age)
        if seen.answer != "answers":
            return [found for _ in self.models]
        loaded = tuple(self._loaded(model) for model in seen.loaded)
        found = replace(found, loaded=loaded, sees_processes=self.pid is not None)
        try:
            self._names.look_up(self.models, self._here, self._store, afresh=self._afresh)
        except LlmctlError as error:
            # It ended between two questions; the next look says how.
            return [replace(found, server="silent", server_words=error.message) for _ in self.models]
        for model in self.models:
            model.runner = self._runner(model)
        found = self._look_at_others(found, seen)
        self._look_at_gpus(self._something_ended(errand) or resumed)
        return [self._of_model(found, model, seen, slots) for model in self.models]

    @property
    def pid(self) -> int | None:
        return self.running.pid if self.running else None

    def pause(self, errand: Errand | None = None) -> Pause | None:
        """Why hands are kept off. An errand may itself have the lock."""
        mine = errand is not None and errand.action in {"restart_engine", "reset_uvm"}
        return hands_off(self.server.paths, at_work=mine)

    # The server

    def _look_at_server(self) -> ServerSeen:
        found = self.server_process
        if found is None and (self._identity is not None or self.running is None or self._afresh):
            try:
                self._identify()
            except PortInUse as error:
                self.owner = self._owner()
                return ServerSeen("stranger", error.message)
            except LlmctlError as error:
                return ServerSeen("silent", error.message, self.server_process)
            found = self.server_process
        if self.running is None:
            return ServerSeen("absent", f"no server at {self.address.url}")
        self._unit.forget()
        if found is not None and found.state in STOPPED:
            return ServerSeen("silent", f"pid {found.pid} is stopped by a signal", found)
        try:
            loaded = self.client(self.running.base_url).ps()
        except ServerUnreachable as error:
            return ServerSeen("silent", error.message, found)
        except ServerNotRunning as error:
            self._forget()
            return ServerSeen("absent", error.message)
        except LlmctlError as error:
            return ServerSeen("stranger", error.message)
        return ServerSeen("answers", "", found, tuple(loaded))

    @property
    def _afresh(self) -> bool:
        return self._looks % AFRESH_LOOKS == 0

    @property
    def server_process(self) -> Vitals | None:
        """The server's process, if it is the one that was found before."""
        found = vitals.read(self.pid) if self.pid else None
        return found if found is not None and found.identity == self._identity else None

    def _identify(self) -> None:
        """Find the server anew. Raises what Server.find raises."""
        self._forget()
        owned = self.server.owned()
        if owned is not None and (found := vitals.read(owned.pid)) is not None and found.state in STOPPED:
            # It would be waited for in vain.
            self.running = self._unanswered(owned)
        else:
            self.running = self.server.find(self.address)
        self.owner = self._owner()
        found = vitals.read(self.pid) if self.pid else None
        self._identity = found.identity if found else None
        for model in self.models:
            model.manifest = None

    def _unanswered(self, owned: process.Process) -> Running:
        from llmctl.server import Running

        return Running(self.address.url, "llmctl", "", owned.pid, store=owned.environ.get("OLLAMA_MODELS"))

    def _forget(self) -> None:
        self.running, self._identity = None, None

    def _owner(self) -> Owner:
        """Whose server it is; where none runs, whose it was, or would be."""
        if self.running is not None:
            self._known_owner = self.running.owner
        if self._known_owner is not None:
            return self._known_owner
        if (service := self.server.service) is not None:
            return "systemd" if service.engine else "foreign"
        state = self.server.state()
        return state.owner if state is not None and state.base_url == self.address.url else "llmctl"

    def _of_unit(self) -> EngineUnit | None:
        """What the engine's own unit waits for, where it has one."""
        service = self.server.service
        if service is None or not service.engine or self.owner != "systemd":
            return None
        return self._unit.look(Manager(service.scope, self.server.environ), self._looks)

    # What is loaded

    def _loaded(self, model: LoadedModel) -> Loaded:
        known = any(model.digest in watched.want.digests for watched in self.models)
        return Loaded(
            model.name,
            model.digest,
            model.context_length,
            model.size_bytes,
            model.size_vram_bytes,
            self._keep_alives.left_seconds(model.expires_at),
            None if known else self._names.weights(self._here, model.name, model.digest, self._store),
        )

    @property
    def _here(self) -> Client:
        return self.client(self.running.base_url if self.running else self.address.url)

    @property
    def _store(self) -> Path | None:
        return Path(self.running.store) if self.running and self.running.store else None

    def _look_at_others(self, look: Look, seen: ServerSeen) -> Look:
        """Whether another runner of this server did something since the last look; by its keep-alive where its
        process cannot be seen, which ends later after each answer."""
        digests = {digest for model in self.models for digest in model.want.digests}
        others = [model for model in seen.loaded if model.digest not in digests]
        everything = len(seen.loaded) - len(others) >= len(self.models)
        before, self._others = self._others, None
        if everything and not others:
            return replace(look, others_busy=False)
        runners, discovering = of_others(self.pid, self.models)
        seen_now = tuple((found.pid, found.cpu_seconds, found.read_bytes) for found in runners)
        self._others = seen_now or tuple(model.expires_at for model in others)
        busy = None if before is None else before != self._others
        return replace(look, others_busy=busy, other_runners=bool(runners), discovering=discovering)

    # The runners

    def _runner(self, model: Watched) -> Vitals | None:
        before = model.runner
        if before is not None and (now := vitals.read(before.pid)) is not None and now.identity == before.identity:
            return now
        found = process.runner_of(model.want.weights_digest, self.pid)
        return vitals.read(found.pid) if found else None

    def _of_model(self, look: Look, model: Watched, seen: ServerSeen, slots: bool) -> Look:
        mine = [raw for raw, line in zip(seen.loaded, look.loaded, strict=True) if ours(model.want, line)]
        model.raw = min(mine, key=lambda raw: raw.context_length != model.want.context, default=None)
        health = self._gpu
        held = health.held_bytes.get(model.runner.pid) if health and model.runner else None
        seen_runner = None if model.runner is None else asked(model.runner, held, slots)
        witnesses = Witnesses(
            claim=None,
            buffers=model.lines(self.server, own=self.owner != "foreign") if model.raw else None,
            gpu_process_bytes=held,
            gpu_difference_bytes=model.gained_bytes if model.runner else None,
            runner_ended=look.sees_processes and model.runner is None,
        )
        return replace(
            look,
            runner=seen_runner,
            alias=model.alias,
            gpu=health.state if health else "unknown",
            gpu_words=health.words if health else "",
            witnesses=witnesses,
        )

    def _something_ended(self, errand: Errand | None) -> bool:
        """Whether a runner or a step ended since the last look: the GPU may be why."""
        before, self._runners = self._runners, {model.runner.identity for model in self.models if model.runner}
        step, self._errand = self._errand, errand
        return bool(before - self._runners) or (step is not None and errand is None)

    def _look_at_gpus(self, at_once: bool) -> None:
        now = self.clock()
        runners = tuple(model.runner.pid for model in self.models if model.runner)
        new = self._gpu is None or any(pid not in self._gpu.held_bytes for pid in runners)
        if not (at_once or new or now >= self._gpu_due):
            return
        began = time.process_time()
        self._gpu = gpu_health.look(runners)
        self._gpu_due = now + (time.process_time() - began) / GPU_SHARE
