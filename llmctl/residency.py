"""Load a model so that it stays, and prove where it lies."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.core.placement import Claim, Proof, Require, Witnesses, is_out_of_memory, judge, parse_buffers
from llmctl.errors import EngineError, Refused
from llmctl.system import nvml, process

if TYPE_CHECKING:
    from llmctl.client import Client

FOREVER = -1
ALL_LAYERS = 999


@dataclass(frozen=True)
class Resident:
    """A model that is loaded, with what proves it."""

    proof: Proof
    witnesses: Witnesses
    runner_pid: int | None


class Residency:
    """Both steps take the alias that is served and the digests that stand for its pinned weights."""

    def loaded(self, client: Client, digests: Collection[str], context: int | None) -> bool:
        """Whether a runner with these weights and this context is there already."""
        return any(model.digest in digests and context in {None, model.context_length} for model in client.ps())

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
        client: Client,
        *,
        digests: Collection[str],
        weights_digest: str,
        context: int | None,
        require: Require,
        log: Callable[[], str] | None,
        gained_bytes: int | None = None,
    ) -> Resident:
        """Ask every witness that can be asked. `log` reads the runner's log, None where there is no access."""
        claim = next(
            (
                Claim(model.digest, model.context_length, model.size_bytes, model.size_vram_bytes)
                for model in client.ps()
                if model.digest in digests
            ),
            None,
        )
        runner = process.runner_of(weights_digest)
        held = nvml.process_bytes(runner.pid) if runner else None
        known = [count for count in held.values() if count is not None] if held else []
        seen = Witnesses(
            claim=claim,
            buffers=parse_buffers(log(), weights_digest) if log else None,
            gpu_process_bytes=sum(known) if known else None,
            gpu_difference_bytes=gained_bytes,
        )
        return Resident(judge(require, digests, context, seen), seen, runner.pid if runner else None)


def does_not_fit(alias: str, text: str) -> Refused:
    return Refused(
        f"{alias} does not fit on the GPU: {text.strip()[:300]}",
        "lower server.context or use kv_cache: q8_0 in the profile, or choose a smaller one: llmctl profiles",
        code="does_not_fit",
    )
