"""guard: look, judge, mend, tell; again and again, until it is told to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import Address
from llmctl.core.guard.decide import Budget, Decision, decide, judged, loaded, probed
from llmctl.core.guard.facts import Finding, Limits, Look, Memory
from llmctl.core.guard.judge import is_starting, judge
from llmctl.core.guard.watch import watch
from llmctl.errors import ConsentNeeded, LlmctlError, Refused
from llmctl.system.guard_note import ModelNote
from llmctl.workflows.findings import QUIET, WORST, Found, as_found, as_found_of, status_words
from llmctl.workflows.looking import Lookout
from llmctl.workflows.mending import Errands, Mender, Outcome
from llmctl.workflows.recording import Recorder
from llmctl.workflows.telling import Event, Teller
from llmctl.workflows.watched import Watched, not_pinned, targets, written

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.profile import Profile
    from llmctl.server import Server
    from llmctl.workflows.up import Up

ASK_SLOTS = frozenset({"wrong_context", "on_cpu", "partial", "probe_slow"})


def no_consent(question: str) -> None:
    raise ConsentNeeded(f"the guard downloads nothing: {question}", "llmctl up")


def address_of(server: Server, profile: Profile) -> Address:
    """Where the server is or was: a private one keeps the port that the last `up` found for it."""
    state = server.state()
    if profile.private and server.owned() is None and state is not None and state.profile == profile.reference:
        host, _, port = state.base_url.removeprefix("http://").rpartition(":")
        return Address(host, int(port), "last up")
    return server.address(profile)


@dataclass
class Guard:
    """One guard of one profile. `clock` is monotonic."""

    up: Up
    teller: Teller
    limits: Limits = field(default_factory=Limits)
    uvm: bool = False
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._clients: dict[str, Client] = {}
        server = self.up.services.server
        address = address_of(server, self.up.profile)
        self.lookout = Lookout(server, self._impatient, address, [], self.clock)
        self.mender = Mender(self.lookout, self.up, self.uvm)
        self.errands = Errands(self.clock)
        self.memories: dict[str, Memory] = {}
        self.decisions: dict[str, Decision] = {}
        self.budget = Budget()
        self._told: dict[str, tuple[str, bool]] = {}
        self._missing: list[str] = []
        self._own: bool | None = None
        self._stamp: object = None
        self._failure = ""
        self._starting = False
        self.recorder = Recorder(self.up)

    def _impatient(self, url: str) -> Client:
        """A client for looks, which do not wait as long as a person would."""
        from llmctl.client import Client
        from llmctl.workflows.looking import ANSWER_SECONDS

        if url not in self._clients:
            self._clients[url] = Client(url, answer_seconds=ANSWER_SECONDS)
        return self._clients[url]

    def run(self) -> None:
        """Until `stop` is set. Never raises for what a look or a step meets."""
        try:
            while not self.stop.is_set():
                self._tick_safely()
                self._wait(self.pause_seconds)
        finally:
            self.teller.stopping()

    @property
    def pause_seconds(self) -> float:
        """Until the next look: a server that starts answers soon, and its model is away until then."""
        return self.limits.soon_seconds if self._starting else self.limits.interval_seconds

    def _tick_safely(self) -> None:
        """A look that fails is said once, and the next one is tried."""
        try:
            self.tick()
            self._failure = ""
        except LlmctlError as error:
            if self._stamp is None:
                raise
            if error.message != self._failure:
                self._failure = error.message
                self._say(Event(time.time(), "", "degraded", None, f"cannot look: {error.message}", degraded=True))

    def _wait(self, seconds: float) -> None:
        """Until the next look, or until the step under way has ended; the watchdog hears of it meanwhile."""
        deadline = self.clock() + seconds
        while not self.stop.is_set() and not self.errands.finished.is_set():
            self.teller.beat(self.clock())
            left = deadline - self.clock()
            if left <= 0:
                return
            limit = self.teller.manager.watchdog_seconds
            pause = left if limit is None else min(left, limit / 3)
            if self.errands.current is None:
                self.stop.wait(pause)
            else:
                self.errands.finished.wait(pause)

    def tick(self) -> list[Found]:
        """One look at everything, one step at most for each model, and word of it."""
        self._take_outcome()
        self._know_targets()
        found = [self._missing_model(name) for name in self._missing]
        looks = self.lookout.look(self.errands.current, slots=self._asks_slots())
        own = self.lookout.owner != "foreign"
        if own != self._own and self.lookout.running is not None:
            # Another one's alias carries the context, so the next look is for another name.
            self._stamp, self._own = None, own
        for model, look in zip(self.lookout.models, looks, strict=True):
            found.append(self._of_model(model, look))
        self._starting = any(is_starting(look, self.limits) for look in looks)
        self._publish(found)
        self.teller.beat(self.clock())
        return found

    def once(self) -> list[Found]:
        """One look without a step, a record or a note."""
        self._know_targets()
        looks = self.lookout.look(slots=True)
        if self._own != (own := self.lookout.owner != "foreign"):
            self._stamp, self._own = None, own
            self._know_targets()
            looks = self.lookout.look(slots=True)
        found = [as_found_of(name, self._not_pinned(name), Decision(None, degraded=True)) for name in self._missing]
        for model, look in zip(self.lookout.models, looks, strict=True):
            memory = watch(Memory(was_resident=True), model.want, look)
            found.append(as_found(model, judge(model.want, look, memory, self.limits), Decision(None)))
        return found

    # What must be there

    def _know_targets(self) -> None:
        """Read the profile and its lock again when one of them was written."""
        profile, lock_path = self.up.profile, self.up.lock_path
        stamp = (written(Path(profile.path)) if profile.path else None, written(lock_path))
        if stamp == self._stamp:
            return
        try:
            if self._stamp is not None and profile.path and not profile.shipped:
                from llmctl.system.shipped import load_profile

                self.up = self.mender.up = self.recorder.up = replace(self.up, profile=load_profile(profile.path))
            lock = self.up.services.library(self.lookout.address.url).read_lock(lock_path)
        except LlmctlError as error:
            if self._stamp is None:
                raise
            self._say(Event(time.time(), "", "degraded", None, f"{error.message}; what was read before still holds"))
            self._stamp = stamp
            return
        self._stamp = stamp
        own, llmctl = self._own is not False, self.up.services.server.paths.llmctl
        models, self._missing = targets(self.up.profile, lock, own=own, llmctl=llmctl, uvm=self.uvm)
        if not models and not self._missing:
            raise Refused(f"{profile.reference} keeps no model resident", "llmctl guard --help")
        self.lookout.models = models
        self.memories = {model.want.name: self.memories.get(model.want.name, Memory()) for model in models}

    def _missing_model(self, name: str) -> Found:
        finding = self._not_pinned(name)
        self._tell(name, finding, Decision(None, degraded=True))
        return as_found_of(name, finding, Decision(None, degraded=True))

    def _not_pinned(self, name: str) -> Finding:
        return not_pinned(name, self.up.services.server.paths.llmctl)

    # One model

    def _asks_slots(self) -> bool:
        now = self.clock()
        due = any(
            memory.probe_wanted or now - (memory.probed_at or 0) >= self.limits.probe_seconds
            for memory in self.memories.values()
        )
        return due or any(memory.judged in ASK_SLOTS for memory in self.memories.values())

    def _of_model(self, model: Watched, look: Look) -> Found:
        name = model.want.name
        siblings = [memory for other, memory in self.memories.items() if other != name]
        # A model before this one may have begun a step since the look.
        busy = any(memory.advancing for memory in siblings)
        look = replace(look, errand=self.errands.current, siblings_busy=busy)
        memory = watch(self.memories[name], model.want, look)
        finding = judge(model.want, look, memory, self.limits)
        decision, self.budget = decide(name, finding, look, memory, self.budget, self.limits, self.mender.can(model))
        self.memories[name] = judged(memory, look, finding)
        self.decisions[name] = decision
        self._tell(name, finding, decision)
        if decision.action is not None:
            if decision.action == "load":
                self.memories[name] = replace(self.memories[name], load_error=None)
            self.errands.start(decision.action, name, self.mender.step(decision.action, model, finding.reason))
        elif finding.good:
            self._record(model, look, finding)
        return as_found(model, finding, decision)

    def _record(self, model: Watched, look: Look, finding: Finding) -> None:
        if self.lookout.running is None or finding.proof is None:
            return
        try:
            self.recorder.record(self.lookout.running, model, look, finding.proof)
        except LlmctlError as error:
            words = f"{error.message}; the guard goes on without it"
            self._say(Event(time.time(), model.want.name, "degraded", None, words))

    def _take_outcome(self) -> None:
        outcome = self.errands.ended()
        if outcome is None or outcome.model not in self.memories:
            return
        memory = self.memories[outcome.model]
        if outcome.action == "load":
            memory = loaded(memory, outcome.error)
        if outcome.action == "probe":
            memory = probed(memory, self.clock(), outcome.took_seconds, outcome.error)
        self.memories[outcome.model] = memory
        if outcome.error is not None:
            self._failed(outcome)

    def _failed(self, outcome: Outcome) -> None:
        reason = self.memories[outcome.model].judged or "loading"
        words = f"{outcome.action} of {outcome.model} failed: {outcome.error}"
        self._say(Event(time.time(), outcome.model, reason, outcome.action, words))

    # Word of it

    def _tell(self, name: str, finding: Finding, decision: Decision) -> None:
        """An event when something else is the case than before, or when something is done."""
        state = (QUIET.get(finding.reason, finding.reason), decision.degraded)
        # A probe changes nothing, and is told of only when it fails.
        action = None if decision.action == "probe" else decision.action
        if state == self._told.get(name) and action is None:
            return
        self._told[name] = state
        self._say(
            Event(
                time.time(),
                name,
                finding.reason,
                action,
                finding.words,
                finding.expected,
                finding.observed,
                finding.remedy,
                decision.degraded,
            )
        )

    def _say(self, event: Event) -> None:
        self.teller.event(event)

    def ready(self, found: list[Found]) -> bool:
        """Whether every model is resident, proved, and has answered."""
        probing = self.errands.current is not None
        answered = all(
            (memory.probed_at is not None and memory.probe_error is None and not memory.probe_wanted)
            or (memory.judged == "busy" and not probing)
            for memory in self.memories.values()
        )
        return bool(found) and all(one.good for one in found) and answered

    def _publish(self, found: list[Found]) -> None:
        notes = tuple(
            ModelNote(one.model, QUIET.get(one.reason, one.reason), one.words, one.degraded, one.remedy)
            for one in found
        )
        worst = min(notes, key=lambda note: (not note.degraded, WORST.index(note.reason)))
        ready = self.ready(found)
        text = "; ".join(status_words(one) for one in found)
        self.teller.status(text, ready)
        self.teller.publish(worst, notes, ready, {one.model: one.good for one in found})
