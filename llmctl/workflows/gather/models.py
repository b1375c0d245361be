"""What must be resident, what is loaded, and what proves it: the questions that status and the guard ask too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.pin import Lock
from llmctl.errors import LlmctlError
from llmctl.residency import Host, Residency, Wanted
from llmctl.system import vitals
from llmctl.workflows.keep_alive import KeepAlives
from llmctl.workflows.naming import Names
from llmctl.workflows.watched import Watched, want

if TYPE_CHECKING:
    from llmctl.client import LoadedModel
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.core.pin import Pin
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.workflows.gather import Given


def gather(given: Given) -> ModelsFacts:
    profile, server = given.profile, given.of_server
    lock = given.of_profile.lock or Lock()
    if not server.answers:
        resident = tuple(unasked(profile, spec, lock.pin(spec.name)) for spec in profile.resident)
        return ModelsFacts(profile.gpu.require, resident, (), asked=False)
    seen = Seen(given, server)
    resident = tuple(seen.resident(profile, spec, lock.pin(spec.name)) for spec in profile.resident)
    return ModelsFacts(profile.gpu.require, resident, seen.loaded)


def unasked(profile: Profile, spec: ModelSpec, pin: Pin | None) -> ResidentFacts:
    """A model while no server tells anything of it."""
    return ResidentFacts(
        spec.name,
        pin.alias if pin else None,
        frozenset({pin.manifest_digest.removeprefix("sha256:")} if pin else ()),
        pin.weights_digest if pin else None,
        spec.context or profile.server.context,
        None,
        None,
        None,
        None,
        None,
        (),
        pin.served if pin else None,
    )


class Seen:
    """The server's answers. Raises LlmctlError where it does not answer after all."""

    def __init__(self, given: Given, server: ServerFacts) -> None:
        self.given = given
        self.server = server
        self.client = given.client(server.url)
        self.store = Path(server.store) if server.store else None
        self.names = Names()
        self.raw = self.client.ps()
        keep_alives = KeepAlives(time.monotonic)
        self.loaded = tuple(self._loaded(model, keep_alives) for model in self.raw)

    def _loaded(self, model: LoadedModel, keep_alives: KeepAlives) -> LoadedFacts:
        return LoadedFacts(
            model.name,
            model.digest,
            model.context_length,
            model.size_bytes,
            model.size_vram_bytes,
            keep_alives.left_seconds(model.expires_at),
            self.names.weights(self.client, model.name, model.digest, self.store),
        )

    def resident(self, profile: Profile, spec: ModelSpec, pin: Pin | None) -> ResidentFacts:
        if pin is None:
            return unasked(profile, spec, None)
        own = self.server.owner != "foreign"
        watched = Watched(want(profile, spec, pin, own))
        try:
            self.names.look_up([watched], self.client, self.store, afresh=True)
        except LlmctlError:
            watched.alias = None
        digests = watched.want.digests | {
            model.digest for model in self.loaded if model.weights_digest == pin.weights_digest
        }
        runner = self.server.runner_of(pin.weights_digest)
        watched.runner = vitals.read(runner.pid) if runner else None
        found = Residency().prove(
            self.raw,
            Wanted(digests, pin.weights_digest, watched.want.context, watched.want.require),
            Host(own, self.server.pid),
            lambda _: watched.lines(self.given.server, own=own),
        )
        state = self.given.server.state()
        recorded = state.model(watched.want.alias) if state else None
        return ResidentFacts(
            spec.name,
            watched.want.alias,
            digests,
            pin.weights_digest,
            watched.want.context,
            None if found.entry is None else self.loaded[self.raw.index(found.entry)],
            found.proof,
            found.witnesses,
            recorded.predicted if recorded else None,
            found.runner_pid,
            runner.argv if runner else (),
            pin.served,
            watched.alias,
        )
