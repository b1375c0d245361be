"""Which server and which model a verb that asks something talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.errors import ServerNotRunning

if TYPE_CHECKING:
    from llmctl.core.server_state import ServerState


@dataclass(frozen=True)
class Target:
    """A server's URL, the name that the model has there, and the digest of its manifest where that is known."""

    base_url: str
    model: str
    digest: str | None = None


def target(state: ServerState | None, model: str | None) -> Target:
    """The server of the last `up`. A model's plain name stands for the alias of its pinned weights.

    A name that no pin knows is passed on as it is: an attached server may have models of its own.
    """
    if state is None:
        raise ServerNotRunning("no server is up", "llmctl up")
    found = state.model(model)
    if found is not None:
        return Target(state.base_url, found.alias, found.served_digest.removeprefix("sha256:"))
    if model is None:
        raise ServerNotRunning("the server is up without a model", "llmctl up")
    return Target(state.base_url, model)
