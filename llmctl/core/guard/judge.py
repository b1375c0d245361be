"""What a look means: one finding, with the steps that may mend it and what a person can do."""

from __future__ import annotations

import shlex
from dataclasses import replace

from llmctl.core.guard.facts import (
    Finding,
    Limits,
    Loaded,
    Look,
    Memory,
    Reason,
    Step,
    Want,
    elapsed,
    entry_of,
    has_under_way,
    idle,
    ours,
)
from llmctl.core.placement import Claim, Proof, Witnesses
from llmctl.core.placement import judge as judge_placement

RELOAD: tuple[Step, ...] = (("load", 6),)
# Ollama (0.34.0) remembers what it read of a file: only another process loads one that was bad and is whole again.
AFTER_FAILURE: tuple[Step, ...] = (("load", 2), ("restart_engine", 1), ("load", 4))
REVIVE: tuple[Step, ...] = (("restart_engine", 4),)
UNSTICK: tuple[Step, ...] = (("end_runner", 2), ("restart_engine", 1))
TO_THE_GPU: tuple[Step, ...] = (("load", 1), ("restart_engine", 1), ("reset_uvm", 1))

AWAKEN: tuple[Step, ...] = (("reset_uvm", 1),)

PLACES = {
    "gpu": "on the GPU",
    "partial": "partly on the GPU",
    "cpu": "in host memory",
    "unknown": "where nothing tells",
}
FOREIGN_REMEDY = "llmctl did not start this server and does not signal it: start it the way it was started"


def judge(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding:
    """The finding of a look, with the memory that it was watched into."""
    if look.pause is not None:
        return Finding(look.pause.reason, look.pause.words)
    if look.server != "answers":
        return _no_answer(want, look, memory, limits)
    if want.require != "none" and look.gpu in {"lost", "mismatch", "absent"}:
        return _no_gpu(look)
    entry = entry_of(want, look)
    if entry is None:
        return _not_there(want, look, memory, limits)
    if look.sees_processes and look.runner is None:
        if (waits := _others_first(want, look, memory, limits)) is not None:
            return waits
        return Finding(
            "not_running",
            f"the runner of {want.name} has ended",
            "a llama-server with the pinned weights",
            "none",
            steps=RELOAD,
        )
    return _there(want, look, memory, limits, entry)


def is_starting(look: Look, limits: Limits) -> bool:
    """Whether its unit brings the server up, and nothing listens yet."""
    return look.server == "absent" and (look.unit == "starting" or (look.unit == "up" and is_young(look, limits)))


def is_young(look: Look, limits: Limits) -> bool:
    return look.server_age_seconds is not None and look.server_age_seconds < limits.start_seconds


def _no_answer(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding:
    expected = "a server that answers"
    own = f"{want.llmctl} logs tells why; {want.llmctl} up starts it"
    remedy = FOREIGN_REMEDY if look.owner == "foreign" else own
    if look.server == "absent" and look.unit == "awaiting_gpu":
        return _awaiting_gpu(want, look, memory, limits)
    if is_starting(look, limits):
        return Finding("loading", look.server_words, expected, "no server yet")
    if look.server in {"absent", "stranger"}:
        steps = REVIVE if look.owner == "llmctl" and look.server == "absent" else ()
        return Finding("not_running", look.server_words, expected, look.server_words, steps, remedy)
    quiet = elapsed(memory.server_quiet_since, look)
    stopped = look.server_state in {"T", "t"}
    if is_young(look, limits) and not stopped:
        return Finding("loading", "the server has started and does not answer yet", expected, "no answer yet")
    if quiet < limits.patience_seconds:
        return Finding("busy", f"the server has not answered for {quiet:.0f} s", expected, "no answer yet")
    words = f"the server has not answered for {quiet:.0f} s and uses no CPU time"
    return Finding("stuck", words, expected, "stopped" if stopped else "silent", REVIVE, remedy)


def _awaiting_gpu(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding:
    """A GPU may come late at boot. One that does not come is not there for CUDA: after a resume nvidia_uvm may be what
    is broken, which NVML does not see (ollama issue 5464)."""
    expected = "a GPU that the engine names"
    if elapsed(memory.gpu_awaited_since, look) < limits.start_seconds:
        return Finding("loading", look.server_words, expected, "none yet")
    remedy = "llmctl doctor gpu says what is missing"
    if want.llmctl.startswith("sudo ") and not want.uvm:
        # Only the service of the whole machine has root's unit for it.
        remedy += f"; {want.llmctl} install-service --reset-uvm lets the guard load nvidia_uvm anew"
    return Finding("gpu_lost", look.server_words, expected, "none", AWAKEN, remedy)


def _no_gpu(look: Look) -> Finding:
    expected = "a GPU that the driver answers for"
    if look.gpu == "mismatch":
        return Finding(
            "driver_mismatch",
            "the NVIDIA library and the kernel's driver are of different versions",
            "one version of both",
            look.gpu_words,
            remedy="reboot, or end all that uses the GPU and load the kernel modules anew",
        )
    remedy = "look at `dmesg | grep -i xid`; a lost GPU comes back with a reboot or a reset (nvidia-smi --gpu-reset)"
    if look.gpu == "absent":
        remedy = "load the NVIDIA driver (nvidia-smi tells whether it is there)"
    return Finding("gpu_lost", f"no usable GPU: {look.gpu_words}", expected, look.gpu_words, remedy=remedy)


def _not_there(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding:
    """The server answers and does not have the model."""
    expected = f"{want.alias} loaded"
    if look.runner is not None:
        return _load_under_way(want, look, memory, limits, expected)
    if (waits := _others_first(want, look, memory, limits)) is not None:
        return waits
    if look.alias in {"gone", "other"}:
        return _wrong_alias(want, look, memory)
    if has_under_way("load", want, look):
        return Finding("loading", f"{want.name} is being loaded", expected, "a load under way")
    others = ", ".join(model.name for model in look.loaded)
    observed = f"{others} loaded" if others else "no model loaded"
    if memory.load_error is not None:
        words = f"a load of {want.name} failed: {memory.load_error}"
        return Finding("load_failed", words, expected, observed, AFTER_FAILURE, _load_remedy(want))
    if memory.server_identity not in {None, look.server_identity}:
        words = f"another server process answers, without {want.name}"
        return Finding("server_replaced", words, expected, observed, RELOAD, evictors(memory))
    if not memory.was_resident:
        return Finding("loading", f"{want.name} is not loaded yet", expected, observed, RELOAD, evictors(memory))
    by = f" by {others}" if others else ""
    return Finding("evicted", f"{want.name} was unloaded{by}", expected, observed, RELOAD, evictors(memory))


def _load_remedy(want: Want) -> str:
    name = shlex.quote(want.name)
    return f"{want.llmctl} verify {name} tells whether its files are whole, {want.llmctl} repair {name} mends them"


def _runner_remedy(want: Want) -> str:
    return f"{want.llmctl} down, then {want.llmctl} up; if it stays, look at the kernel's log (dmesg)"


def _others_first(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding | None:
    """A foreign model that is in use, or still being loaded, is waited for; not by a load that is under way."""
    if has_under_way("load", want, look):
        return None
    others = ", ".join(model.name for model in look.loaded if not ours(want, model))
    if look.discovering and not others:
        reason: Reason = "evicted" if memory.was_resident else "loading"
        words = f"{want.name} is not loaded; the server looks for GPUs before it loads a model"
        return _waits(want, memory, Finding(reason, words, f"{want.alias} loaded", "a load under way"))
    foreign = bool(others) or look.other_runners
    if not foreign or elapsed(memory.others_quiet_since, look) >= limits.quiet_seconds:
        return None
    told = f"{others} is, and in use" if others else "another model is being loaded"
    words = f"{want.name} is not loaded; {told}: it is loaded again once that is idle"
    observed = f"{others} loaded" if others else "another model under way"
    return _waits(want, memory, Finding("evicted", words, f"{want.alias} loaded", observed))


def _waits(want: Want, memory: Memory, finding: Finding) -> Finding:
    """Where its own load failed before, that is what a person must mend, whoever has the GPU meanwhile."""
    if memory.load_error is None:
        return replace(finding, remedy=evictors(memory))
    words = f"{finding.words}; its last load failed: {memory.load_error}"
    return replace(finding, reason="load_failed", words=words, remedy=_load_remedy(want))


def _load_under_way(want: Want, look: Look, memory: Memory, limits: Limits, expected: str) -> Finding:
    still = elapsed(memory.advanced_at, look)
    stopped = look.runner is not None and look.runner.state in {"T", "t"}
    patience = limits.patience_seconds if stopped else 4 * limits.patience_seconds
    if still < patience:
        return Finding("loading", f"{want.name} is being loaded", expected, "its runner has started")
    words = f"{want.name} is being loaded and has not come further for {still:.0f} s"
    return Finding("stuck", words, expected, "a runner that does nothing", UNSTICK, _runner_remedy(want))


def _wrong_alias(want: Want, look: Look, memory: Memory) -> Finding:
    gone = look.alias == "gone"
    words = f"the server no longer has {want.alias}" if gone else f"{want.alias} stands for other weights"
    steps: tuple[Step, ...] = (("load", 2),) if idle(look, memory) else ()
    observed = "no such model" if gone else "another digest"
    return Finding(
        "wrong_digest",
        words,
        f"weights {want.weights_digest[7:19]}",
        observed,
        steps,
        f"{want.llmctl} up gets it",
    )


def _there(want: Want, look: Look, memory: Memory, limits: Limits, entry: Loaded) -> Finding:
    """The server says that it has the model, and its runner lives or cannot be seen."""
    if (stuck := _stuck(want, look, memory, limits)) is not None:
        return stuck
    if look.alias in {"gone", "other"}:
        return _wrong_alias(want, look, memory)
    if want.context != entry.context:
        waiting = "" if idle(look, memory) else ": it is loaded again once it is idle"
        words = f"a client loaded {want.name} with a context of {entry.context}{waiting}"
        steps = RELOAD if idle(look, memory) else ()
        expected, observed = f"a context of {want.context}", f"a context of {entry.context}"
        remedy = f"find the client that asks for num_ctx {entry.context} and let it not send num_ctx"
        return Finding("wrong_context", words, expected, observed, steps, remedy)
    proof = proof_of(want, look, entry)
    if (fallen := _fallen(want, look, memory, proof)) is not None:
        return fallen
    if not idle(look, memory):
        return Finding("busy", f"{want.name} is answering", proof=proof)
    slow = memory.probe_seconds is not None and memory.probe_seconds > limits.slow_seconds
    if slow:
        words = f"{want.name} took {memory.probe_seconds:.1f} s for one token while it was idle"
        expected = f"one token within {limits.slow_seconds:.0f} s"
        return Finding("probe_slow", words, expected, f"{memory.probe_seconds:.1f} s", proof=proof)
    return Finding("resident", f"{want.name} is resident {PLACES[proof.place]}", proof=proof)


def _stuck(want: Want, look: Look, memory: Memory, limits: Limits) -> Finding | None:
    """A runner that has done nothing for too long, although there is something to do."""
    runner = look.runner
    still = elapsed(memory.advanced_at, look)
    expected = "a runner that answers"

    def found(words: str, observed: str) -> Finding:
        return Finding("stuck", words, expected, observed, UNSTICK, _runner_remedy(want))

    if runner is not None and still >= limits.patience_seconds:
        if runner.state in {"T", "t"}:
            return found(f"the runner of {want.name} is stopped by a signal", f"stopped for {still:.0f} s")
        if runner.health == "silent":
            words = f"the runner of {want.name} answers nothing and uses no CPU time"
            return found(words, f"silent for {still:.0f} s")
        if has_under_way("probe", want, look) and look.errand is not None:
            waited = look.at_seconds - look.errand.since_seconds
            if waited >= limits.patience_seconds:
                words = f"a probe of {want.name} waits, and its runner uses no CPU time"
                return found(words, f"no token for {waited:.0f} s")
    if memory.stopping_since is not None and elapsed(memory.stopping_since, look) >= limits.patience_seconds:
        return found(
            f"{want.name} is being unloaded and does not go", "its keep-alive has ended, and it is still there"
        )
    if memory.probe_error is not None and idle(look, memory):
        return found(f"{want.name} answers with an error: {memory.probe_error}", memory.probe_error)
    return None


def _fallen(want: Want, look: Look, memory: Memory, proof: Proof) -> Finding | None:
    """A model that is not on the GPU where it must be, or of which nothing shows where it is."""
    if proof.verdict == "proved":
        return None
    words = f"{want.name}: {'; '.join(proof.reasons)}"
    expected = "all of it on a GPU" if want.require == "full" else "on a GPU"
    steps = TO_THE_GPU if idle(look, memory) else ()
    if proof.verdict == "refuted" and proof.place in {"cpu", "partial"}:
        reason: Reason = "on_cpu" if proof.place == "cpu" else "partial"
        remedy = f"llmctl fit tells whether it fits; {want.llmctl} logs tells what the engine found"
        return Finding(reason, words, expected, PLACES[proof.place], steps, remedy, proof)
    remedy = "let this user read the engine's log, or use a server that llmctl started"
    return Finding("degraded", words, expected, "nothing tells where it lies", (), remedy, proof)


def proof_of(want: Want, look: Look, entry: Loaded) -> Proof:
    claim = Claim(entry.digest, entry.context, entry.size_bytes, entry.size_vram_bytes)
    seen = replace(look.witnesses, claim=claim) if look.witnesses else Witnesses(claim)
    # A name that shares the runner stands for the same weights.
    return judge_placement(want.require, want.digests | {entry.digest}, want.context, seen)


def evictors(memory: Memory) -> str:
    """Which clients' models took the place, and how often."""
    counts: dict[tuple[str, int | None], int] = {}
    for eviction in memory.evictions:
        counts[eviction.by, eviction.context] = counts.get((eviction.by, eviction.context), 0) + 1
    told = [
        f"{name} (context {context or 'unknown'}) took its place {count} time{'' if count == 1 else 's'}"
        for (name, context), count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return "; ".join(told[:3])
