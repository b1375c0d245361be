"""One model that the guard keeps: what must be there, and what was found of it so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.guard.facts import AliasState, Finding, Want
from llmctl.core.placement import RUNNER_START, Buffer, parse_buffers

if TYPE_CHECKING:
    from llmctl.client import LoadedModel
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.server import Server
    from llmctl.system.vitals import Vitals

# A load writes some 40 KB; the whole tail is read only where the lines are not among the last.
LOG_BYTES = 256 << 10
MOST_LOG_BYTES = 1 << 20
BUFFER_TRIES = 3


@dataclass
class Watched:
    """One model that the guard keeps, and what was found of it so far. `digest` is the alias's manifest."""

    want: Want
    runner: Vitals | None = None
    raw: LoadedModel | None = None
    alias: AliasState | None = None
    digest: str | None = None
    manifest: tuple[Path, tuple[int, int] | None] | None = None
    gained_bytes: int | None = None
    buffers: tuple[str, int, tuple[Buffer, ...] | None] = ("", 0, None)

    def lines(self, server: Server, *, own: bool) -> tuple[Buffer, ...] | None:
        """The buffer lines of its runner: what was recorded of it, else of the engine's log, where that is `own`."""
        if self.runner is None:
            return None
        identity, tries, found = self.buffers
        if identity != self.runner.identity:
            identity, tries, found = self.runner.identity, 0, self._recorded(server, self.runner.pid)
        if found is None and own and tries < BUFFER_TRIES:
            digest, tries = self.want.weights_digest, tries + 1
            text = server.log(LOG_BYTES)
            found = parse_buffers(text, digest)
            if found is None and RUNNER_START not in text:
                # Much was written since; a guard does not hold all of a log in memory.
                found = parse_buffers(server.log(MOST_LOG_BYTES), digest)
        self.buffers = (identity, tries, found)
        return found

    def _recorded(self, server: Server, pid: int) -> tuple[Buffer, ...] | None:
        state = server.state()
        known = state.model(self.want.alias) if state else None
        return known.buffers if known is not None and known.runner_pid == pid else None


def written(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def targets(
    profile: Profile, lock: Lock, *, own: bool, llmctl: str = "llmctl", uvm: bool = False
) -> tuple[list[Watched], list[str]]:
    """The resident models that are pinned, and the names of those that are not. `own`: the server has the profile's
    context in its environment; another one's alias carries it. `llmctl` is the command that has the rights, and
    `uvm` says that root's unit is there."""
    watched, missing = [], []
    for spec in profile.resident:
        pin = lock.pin(spec.name)
        if pin is None:
            missing.append(spec.name)
        else:
            watched.append(Watched(replace(want(profile, spec, pin, own), llmctl=llmctl, uvm=uvm)))
    return watched, missing


def want(profile: Profile, spec: ModelSpec, pin: Pin, own: bool) -> Want:
    context = spec.context or profile.server.context
    plain = own and context == profile.server.context
    return Want(
        name=spec.name,
        alias=pin.alias if plain else f"{pin.alias}-c{context}",
        digests=frozenset({pin.manifest_digest.removeprefix("sha256:")}),
        weights_digest=pin.weights_digest,
        context=context,
        require=profile.gpu.require,
    )


def not_pinned(name: str, llmctl: str) -> Finding:
    words = f"{name} is not pinned yet, so there is nothing to keep"
    return Finding("degraded", words, "a pin in the lock", "none", remedy=f"{llmctl} up gets it and pins it")
