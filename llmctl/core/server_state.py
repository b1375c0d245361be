"""What an `up` leaves behind: whose server runs, and the models that it made true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmctl.core.placement import Buffer, Require
from llmctl.core.prediction import Predicted

Owner = Literal["llmctl", "systemd", "foreign"]


@dataclass(frozen=True)
class ActiveModel:
    """A model that `up` made true: the name as asked, the alias it is served as, and the proof of its load.

    `served` is the name that the weights have of their own, another one where the starter stands in.
    `served_digest` is the alias's manifest; it differs from the pinned one where the alias carries a context.
    `buffers` are the runner's lines, which hold as long as `runner_pid` lives; `predicted` is what `fit` said.
    `source` is what the pin was made of.
    """

    name: str
    served: str
    alias: str
    manifest_digest: str
    served_digest: str
    weights_digest: str
    quantization: str
    context: int
    size_bytes: int | None
    verdict: str
    place: str
    reasons: tuple[str, ...] = ()
    runner_pid: int | None = None
    buffers: tuple[Buffer, ...] | None = None
    predicted: Predicted | None = None
    source: str | None = None


@dataclass(frozen=True)
class ServerState:
    """What the last `up` left behind. `profile` is a shipped name or a path; after `down` only it still counts."""

    profile: str
    base_url: str
    owner: Owner
    engine_version: str
    store: str | None
    require: Require
    context: int
    parallel: int
    kv_cache: str
    models: tuple[ActiveModel, ...] = ()
    stopped: bool = False

    def model(self, name: str | None) -> ActiveModel | None:
        """The model asked for by its name or alias; the first one when no name is given."""
        if name is None:
            return self.models[0] if self.models else None
        return next((model for model in self.models if name in {model.name, model.alias}), None)


def state_of(document: Mapping[str, Any]) -> ServerState:
    """The state as its file has it. ValueError, TypeError or KeyError where it is none."""
    return ServerState(**{**document, "models": tuple(active_model(model) for model in document["models"])})


def active_model(entry: Mapping[str, Any]) -> ActiveModel:
    buffers = entry["buffers"]
    lines = None if buffers is None else tuple(Buffer(**line) for line in buffers)
    predicted = None if entry.get("predicted") is None else Predicted(**entry["predicted"])
    return ActiveModel(**{**entry, "reasons": tuple(entry["reasons"]), "buffers": lines, "predicted": predicted})
