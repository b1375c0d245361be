"""The models that must be resident, and what the server has loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.core.placement import Proof, Require, Witnesses
from llmctl.core.prediction import Predicted

AliasState = Literal["there", "gone", "other"]


@dataclass(frozen=True)
class LoadedFacts:
    """One line of /api/ps. `stays_seconds`: until its keep-alive ends, None for ever. `weights_digest` is None where
    nobody can tell."""

    name: str
    digest: str
    context: int | None
    size_bytes: int
    size_vram_bytes: int
    stays_seconds: float | None
    weights_digest: str | None = None


@dataclass(frozen=True)
class ResidentFacts:
    """One model that the profile keeps resident. `loaded` None: it is not.

    `digests` are manifests that stand for the weights, 64 hex digits each; `runner_argv` is empty where its runner
    cannot be seen. `alias_state` is what the server has under the alias, None where it was not asked. `served` is the
    plain name that the weights were pinned from. Without a pin, `alias` and `weights_digest` are None.
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
    served: str | None = None
    alias_state: AliasState | None = None


@dataclass(frozen=True)
class ModelsFacts:
    """`asked`: the server told what it has loaded; without that nobody knows."""

    require: Require
    resident: tuple[ResidentFacts, ...]
    loaded: tuple[LoadedFacts, ...]
    asked: bool = True

    @property
    def others(self) -> tuple[LoadedFacts, ...]:
        """Loaded models that stand for no pin."""
        mine = {one.weights_digest for one in self.resident} - {None}
        digests = {digest for one in self.resident for digest in one.digests}
        return tuple(model for model in self.loaded if model.digest not in digests and model.weights_digest not in mine)
