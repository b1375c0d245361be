"""The models that must be resident, and what the server has loaded."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.placement import Proof, Require, Witnesses
from llmctl.core.prediction import Predicted


@dataclass(frozen=True)
class LoadedFacts:
    """One line of /api/ps. `stays_seconds`: until its keep-alive ends, None for ever."""

    name: str
    digest: str
    context: int | None
    size_bytes: int
    size_vram_bytes: int
    stays_seconds: float | None


@dataclass(frozen=True)
class ResidentFacts:
    """One model that the profile keeps resident. `loaded` None: it is not.

    `digests` are manifests that stand for the weights, 64 hex digits each; `runner_argv` is empty where its runner
    cannot be seen.
    """

    name: str
    alias: str | None
    digests: frozenset[str]
    weights_digest: str | None
    context: int
    loaded: LoadedFacts | None
    proof: Proof | None
    witnesses: Witnesses | None
    predicted: Predicted | None
    runner_pid: int | None
    runner_argv: tuple[str, ...]


@dataclass(frozen=True)
class ModelsFacts:
    """`pinned` False: `up` has never made the profile true, so nothing is missing yet."""

    require: Require
    pinned: bool
    resident: tuple[ResidentFacts, ...]
    loaded: tuple[LoadedFacts, ...]
