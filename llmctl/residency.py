"""Load a model so that it stays, and prove where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.placement import Buffer, Claim, Proof, Require, Witnesses, is_out_of_memory, judge
from llmctl.errors import EngineError, Refused
from llmctl.system import nvml, process

if TYPE_CHECKING:
    from llmctl.client import Client, LoadedModel

FOREVER = -1
ALL_LAYERS = 999


@dataclass(frozen=True)
class Wanted:
    """What must be resident. `digests` are the manifests that stand for the weights (64 hex digits each);
    `context` is tokens per slot, None for any."""

    digests: frozenset[str]
    weights_digest: str
    context: int | None
    require: Require

    def among(self, loaded: Sequence[LoadedModel]) -> LoadedModel | None:
        """Its line of /api/ps; one with the right context first, where several names share the weights."""
        mine = [model for model in loaded if model.digest in self.digests]
        return min(mine, key=lambda model: model.context_length != self.context, default=None)


@dataclass(frozen=True)
class Host:
    """The server that has it. `pid` None where it cannot be seen: then no runner is known to be its own."""

    owned: bool
    pid: int | None


@dataclass(frozen=True)
class Resident:
    """A model as it was found, with what proves it."""

    proof: Proof
    witnesses: Witnesses
    entry: LoadedModel | None
    runner_pid: int | None


class Residency:
    """Load and prove. Nothing else here changes where a model lies."""

    def loaded(self, client: Client, wanted: Wanted, host: Host) -> bool:
        """Whether a living runner with these weights and this context is there already."""
        entry = wanted.among(client.ps())
        if entry is None or wanted.context not in {None, entry.context_length}:
            return False
        return not (host.owned and process.runner_of(wanted.weights_digest, host.pid) is None)

    def load(self, client: Client, alias: str, require: Require, *, owned: bool) -> int | None:
        """Load and wait; the bytes that all GPUs gained meanwhile, None when NVML is not there.

        An owned server holds every setting in its environment and gets an empty request: most options in a
        preload would make every later client reload the model (ollama v0.33.0 server/sched.go:1381-1431).
        On an attached server `num_gpu: 999` is the one that enforces the GPU and is not compared later.
        Raises Refused when the model does not fit.
        """
        before = nvml.used_bytes()
        options: dict[str, Any] | None = None if owned or require != "full" else {"num_gpu": ALL_LAYERS}
        try:
            client.load(alias, options, None if owned else FOREVER)
        except EngineError as error:
            if is_out_of_memory(error.message):
                raise does_not_fit(alias, error.message) from None
            raise
        after = nvml.used_bytes()
        return None if before is None or after is None else max(0, after - before)

    def prove(
        self,
        loaded: Sequence[LoadedModel],
        wanted: Wanted,
        host: Host,
        buffers: Callable[[int | None], tuple[Buffer, ...] | None],
        gained_bytes: int | None = None,
    ) -> Resident:
        """Ask every witness that can be asked. `buffers` gives the lines of the runner with that pid."""
        entry = wanted.among(loaded)
        runner = process.runner_of(wanted.weights_digest, host.pid)
        pid = runner.pid if runner else None
        seen = Witnesses(
            claim=Claim(entry.digest, entry.context_length, entry.size_bytes, entry.size_vram_bytes) if entry else None,
            buffers=buffers(pid),
            gpu_process_bytes=nvml.total_process_bytes(pid) if pid else None,
            gpu_difference_bytes=gained_bytes,
            runner_ended=host.owned and runner is None,
        )
        return Resident(judge(wanted.require, wanted.digests, wanted.context, seen), seen, entry, pid)


def does_not_fit(alias: str, text: str) -> Refused:
    return Refused(
        f"{alias} does not fit on the GPU: {text.strip()[:300]}",
        "lower server.context or use kv_cache: q8_0 in the profile, or choose a smaller one: llmctl profiles",
        code="does_not_fit",
    )
