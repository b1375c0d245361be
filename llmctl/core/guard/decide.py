"""What the guard does about a finding, and how often at most. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmctl.core.guard.facts import Action, Finding, Limits, Look, Memory, Reason, idle

# However many reasons there are, no step is taken more often than this in one window.
CAPS: dict[Action, int] = {"load": 8, "end_runner": 3, "restart_engine": 5, "reset_uvm": 1, "probe": 24}
PROBED: frozenset[Reason] = frozenset({"resident", "probe_slow"})
# Without a step, because somebody is at work or something is under way.
PASSING: frozenset[Reason] = frozenset(
    {"busy", "loading", "evicted", "load_failed", "wrong_context", "wrong_digest", "on_cpu", "partial"}
)


@dataclass(frozen=True)
class Taken:
    """A step that was taken. The steps of all models of one server stand in one list."""

    at_seconds: float
    action: Action
    reason: Reason
    model: str


@dataclass(frozen=True)
class Budget:
    """The steps of the last window, and the reasons whose steps are used up, each with when it may begin anew."""

    taken: tuple[Taken, ...] = ()
    spent: tuple[tuple[str, Reason, float], ...] = ()

    def at(self, now: float, limits: Limits) -> Budget:
        """The same without what is over."""
        return Budget(
            tuple(step for step in self.taken if now - step.at_seconds < limits.window_seconds),
            tuple(entry for entry in self.spent if now < entry[2]),
        )

    def add(self, step: Taken) -> Budget:
        return replace(self, taken=(*self.taken, step))

    def is_spent(self, model: str, reason: Reason) -> bool:
        return any(entry[:2] == (model, reason) for entry in self.spent)

    def spend(self, model: str, reason: Reason, until: float) -> Budget:
        return replace(self, spent=(*self.spent, (model, reason, until)))

    def count(self, action: Action, model: str | None = None, reason: Reason | None = None) -> int:
        return sum(
            1
            for step in self.taken
            if step.action == action and model in {None, step.model} and reason in {None, step.reason}
        )

    def last(self, action: Action) -> float | None:
        return max((step.at_seconds for step in self.taken if step.action == action), default=None)


@dataclass(frozen=True)
class Decision:
    """The step to take now, None for none. `degraded`: nothing more will be tried for a while."""

    action: Action | None
    degraded: bool = False


def decide(
    model: str,
    finding: Finding,
    look: Look,
    memory: Memory,
    budget: Budget,
    limits: Limits,
    can: frozenset[Action],
) -> tuple[Decision, Budget]:
    """What to do now, and the budget with the step in it. `can`: what the guard has the rights for here."""
    now = look.at_seconds
    budget = budget.at(now, limits)
    if look.pause is not None:
        return Decision(None), budget
    if finding.reason in PROBED:
        return _probe(model, finding, look, memory, budget, limits, can)
    if (finding.remedy or finding.steps) and budget.is_spent(model, finding.reason):
        # Also while there is no step for another cause, as a foreign model in use: nothing more is tried.
        return Decision(None, degraded=True), budget
    if not finding.steps:
        # What has no step but a remedy is for a person; what has neither passes by itself.
        return Decision(None, degraded=bool(finding.remedy) and finding.reason not in PASSING), budget
    if look.errand is not None and not (finding.reason == "stuck" and look.errand.action in {"load", "probe"}):
        # Only what waits for something stuck is not waited for.
        return Decision(None), budget
    action, waits = _next(model, finding, look, budget, limits, can)
    if action is not None:
        return Decision(action), budget.add(Taken(now, action, finding.reason, model))
    if waits:
        return Decision(None), budget
    return Decision(None, degraded=True), budget.spend(model, finding.reason, now + limits.window_seconds)


def _next(
    model: str, finding: Finding, look: Look, budget: Budget, limits: Limits, can: frozenset[Action]
) -> tuple[Action | None, bool]:
    """The first step that is left, or None and whether one will be soon."""
    for action, times in finding.steps:
        mine = budget.count(action, model, finding.reason)
        if action not in can or mine >= times or budget.count(action) >= CAPS[action]:
            continue
        if action == "restart_engine" and answers_others(look):
            return None, True
        last = budget.last(action)
        # The first time at once; then longer and longer, so that a client that wants the GPU too is not fought.
        gap = limits.gap_seconds * 2 ** (budget.count(action) - 1) if last is not None else 0.0
        gap = min(gap, limits.window_seconds / 3)
        if last is not None and look.at_seconds - last < gap:
            return None, True
        return action, False
    return None, False


def answers_others(look: Look) -> bool:
    """Whether an end of the server could end somebody's answer from another model."""
    return look.server == "answers" and (look.siblings_busy or look.others_busy is not False)


def _probe(
    model: str,
    finding: Finding,
    look: Look,
    memory: Memory,
    budget: Budget,
    limits: Limits,
    can: frozenset[Action],
) -> tuple[Decision, Budget]:
    """One token of an idle model: after a load, a change or a resume, and rarely otherwise."""
    now = look.at_seconds
    due = memory.probe_wanted or memory.probed_at is None or now - memory.probed_at >= limits.probe_seconds
    if not due or look.errand is not None or not idle(look, memory) or "probe" not in can:
        return Decision(None), budget
    if budget.count("probe") >= CAPS["probe"]:
        return Decision(None), budget
    return Decision("probe"), budget.add(Taken(now, "probe", finding.reason, model))


def loaded(memory: Memory, error: str | None) -> Memory:
    """The memory after a load."""
    failed_on = None if error is None else memory.answered
    return replace(memory, load_error=error, failed_on=failed_on, probe_wanted=True)


def probed(memory: Memory, at_seconds: float, took_seconds: float, error: str | None) -> Memory:
    """The memory after a probe, whose own work is nobody's answer."""
    took = None if error is not None else took_seconds
    return replace(memory, mark=None, probe_wanted=False, probed_at=at_seconds, probe_seconds=took, probe_error=error)


def judged(memory: Memory, look: Look, finding: Finding) -> Memory:
    """The memory after a finding: the server that had the model is known again."""
    identity = look.server_identity if finding.good else memory.server_identity
    return replace(memory, judged=finding.reason, server_identity=identity or memory.server_identity)
