"""The words of the guard: what a look is made of, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.core.placement import Proof, Require, Witnesses
from llmctl.core.server_state import Owner

Reason = Literal[
    "resident",
    "busy",
    "loading",
    "not_running",
    "evicted",
    "load_failed",
    "wrong_digest",
    "wrong_context",
    "on_cpu",
    "partial",
    "stuck",
    "gpu_lost",
    "driver_mismatch",
    "server_replaced",
    "probe_slow",
    "held",
    "leased",
    "degraded",
]
Action = Literal["load", "end_runner", "restart_engine", "reset_uvm", "probe"]
ServerAnswer = Literal["answers", "silent", "absent", "stranger"]
Health = Literal["ok", "loading", "silent", "unasked"]
AliasState = Literal["there", "gone", "other"]
GpuState = Literal["fine", "lost", "mismatch", "absent", "unknown"]
UnitPhase = Literal["starting", "awaiting_gpu", "up", "failed", "stopped"]

# A step of a finding's ladder, and how often it may be taken in one window.
Step = tuple[Action, int]


@dataclass(frozen=True)
class Limits:
    """The guard's patience, all of it in looks, so that a shorter interval makes everything shorter.

    patience: without any progress, until something is called stuck. start: a server may take as long as this to
    answer at first. window: in which each step has its budget. gap: between a step and the same step again, doubled
    each time. quiet: how long a foreign model must have been idle. probe: between two probes of an idle model. soon:
    between two looks while a server starts, which is over in a second or two.
    """

    interval_seconds: float = 5.0

    @property
    def soon_seconds(self) -> float:
        return self.interval_seconds / 5

    @property
    def patience_seconds(self) -> float:
        return 6 * self.interval_seconds

    @property
    def start_seconds(self) -> float:
        return 18 * self.interval_seconds

    @property
    def window_seconds(self) -> float:
        return 120 * self.interval_seconds

    @property
    def gap_seconds(self) -> float:
        return 2 * self.interval_seconds

    @property
    def quiet_seconds(self) -> float:
        return 2 * self.interval_seconds

    @property
    def probe_seconds(self) -> float:
        return 120 * self.interval_seconds

    @property
    def slow_seconds(self) -> float:
        """A probe of an idle model that took longer is slow."""
        return 6 * self.interval_seconds


@dataclass(frozen=True)
class Want:
    """What must be resident. `digests` are manifests that stand for the weights, 64 hex digits each; `context` is
    tokens per slot; `llmctl` is the command that has the rights to mend it; `uvm`: root's unit that loads nvidia_uvm
    anew is there."""

    name: str
    alias: str
    digests: frozenset[str]
    weights_digest: str
    context: int
    require: Require
    llmctl: str = "llmctl"
    uvm: bool = False


@dataclass(frozen=True)
class Loaded:
    """One line of /api/ps. `weights_digest` is None where nobody can tell; `stays_seconds` is the time until its
    keep-alive ends, negative when it has, None for ever."""

    name: str
    digest: str
    context: int | None
    size_bytes: int
    size_vram_bytes: int
    stays_seconds: float | None = None
    weights_digest: str | None = None


@dataclass(frozen=True)
class Runner:
    """The process that serves the weights. `identity` is another one when the process is.

    `cpu_seconds` and `read_bytes` only ever grow while it does something; `processing`: its slots say that a request
    is in work, None when they were not asked. `gpu_bytes` None: NVML cannot tell.
    """

    pid: int
    identity: str
    state: str
    cpu_seconds: float
    read_bytes: int | None = None
    health: Health = "unasked"
    processing: bool | None = None
    gpu_bytes: int | None = None


@dataclass(frozen=True)
class Pause:
    """Why the guard keeps its hands off, in words."""

    reason: Literal["held", "leased"]
    words: str


@dataclass(frozen=True)
class Errand:
    """What the guard itself has under way, and for which model."""

    action: Action
    since_seconds: float
    model: str


@dataclass(frozen=True)
class Look:
    """Everything that one look saw. Times are of the monotonic clock; None is unknown.

    sees_processes: this user can tell which processes are the server's, so that a runner that is not seen is not
    there. unit: what systemd says of the engine's unit, while nothing answers. others_busy: whether a foreign runner of
    the server did something since the last look; other_runners: whether one is there, which /api/ps shows only once it
    has loaded; discovering: the server has a runner look for GPUs, as it does before a load. siblings_busy: whether
    another pinned model is answering. alias: what the server has under the alias.
    """

    at_seconds: float
    owner: Owner
    server: ServerAnswer
    server_words: str = ""
    server_identity: str | None = None
    server_state: str | None = None
    server_cpu_seconds: float | None = None
    server_age_seconds: float | None = None
    unit: UnitPhase | None = None
    loaded: tuple[Loaded, ...] = ()
    sees_processes: bool = False
    runner: Runner | None = None
    others_busy: bool | None = None
    other_runners: bool = False
    discovering: bool = False
    siblings_busy: bool = False
    alias: AliasState | None = None
    gpu: GpuState = "unknown"
    gpu_words: str = ""
    pause: Pause | None = None
    resumed: bool = False
    errand: Errand | None = None
    witnesses: Witnesses | None = None


@dataclass(frozen=True)
class Eviction:
    """A time at which the model was found to be gone while others were loaded."""

    at_seconds: float
    by: str
    context: int | None


@dataclass(frozen=True)
class Memory:
    """What was seen of one model before. `judged` is the reason of the last look, `probed…` is about this runner.

    `mark` is what the runner had done when it last came further; `gone`: nobody is known yet who took its place.
    `server_identity` is the server that had the model, `answered` the one that answered last, and `load_error` how the
    last load failed on `failed_on`: another server may well load it. `gpu_awaited_since`: the engine's unit waits for a
    GPU.
    """

    server_identity: str | None = None
    answered: str | None = None
    server_cpu_seconds: float | None = None
    server_quiet_since: float | None = None
    gpu_awaited_since: float | None = None
    runner_identity: str | None = None
    mark: tuple[float, int | None, int | None] | None = None
    advanced_at: float | None = None
    advancing: bool = False
    was_resident: bool = False
    others_quiet_since: float | None = None
    stopping_since: float | None = None
    probe_wanted: bool = True
    probed_at: float | None = None
    probe_seconds: float | None = None
    probe_error: str | None = None
    load_error: str | None = None
    failed_on: str | None = None
    there: bool = False
    gone: bool = False
    evictions: tuple[Eviction, ...] = ()
    judged: Reason | None = None


@dataclass(frozen=True)
class Finding:
    """What one look means. `steps` is what may be tried, in order; `remedy` is for a person, in words."""

    reason: Reason
    words: str
    expected: str = ""
    observed: str = ""
    steps: tuple[Step, ...] = ()
    remedy: str = ""
    proof: Proof | None = None

    @property
    def good(self) -> bool:
        """Whether the model is where it should be."""
        return self.reason in {"resident", "busy", "probe_slow"} and (
            self.proof is not None and self.proof.verdict == "proved"
        )


def ours(want: Want, model: Loaded) -> bool:
    """Whether a line of /api/ps is about the wanted weights: several names may stand for them."""
    return model.digest in want.digests or model.weights_digest == want.weights_digest


def entry_of(want: Want, look: Look) -> Loaded | None:
    mine = [model for model in look.loaded if ours(want, model)]
    return min(mine, key=lambda model: model.context != want.context, default=None)


def has_under_way(action: Action, want: Want, look: Look) -> bool:
    """Whether the guard itself has begun this step for this model."""
    return look.errand is not None and (look.errand.action, look.errand.model) == (action, want.name)


def idle(look: Look, memory: Memory) -> bool:
    """Whether nobody is being answered. A runner that cannot be seen is taken for idle."""
    return not memory.advancing and not (look.runner is not None and look.runner.processing)


def elapsed(since: float | None, look: Look) -> float:
    return 0.0 if since is None else max(0.0, look.at_seconds - since)
