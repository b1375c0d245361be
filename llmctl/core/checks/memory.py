"""Checks of the memory."""

from __future__ import annotations

import shlex
from dataclasses import replace

from llmctl.core.checks.causes import NO_GPU
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.fit import ModelFit
from llmctl.core.checks.facts.gpu import Card
from llmctl.core.checks.facts.models import ResidentFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import since, unsaid
from llmctl.core.checks.wanted import gpu_required, holder, on_gpu, others, restarted, severity
from llmctl.core.checks.words import MIB, size, times
from llmctl.core.prediction import claim_apart, findings, most

CUDA = "CUDA"
# What a device may fall short of the reserve before a word is said: the driver rounds.
TOLERANCE = 0.9
# Less free host memory than this, beside a model in it, and the kernel may end a process.
LEAST_HOST_BYTES = 512 * MIB
MOST_HOLDERS = 6


def does_not_fit(facts: Facts) -> Judgement:
    profile = facts.profile.profile
    if profile is None or not gpu_required(facts):
        return None
    every = facts.fit.models
    asked = [model for model in every if model.gpu]
    lacking = [
        model
        for model in asked
        if model.verdict == "no" or (model.verdict == "partial" and profile.gpu.require == "full")
    ]
    if lacking:
        return tuple(short_of(model, facts) for model in lacking)
    unknown = [model for model in asked if model.verdict == "unknown"]
    if unknown:
        return Unknown(f"{unknown[0].name}: {unknown[0].problem or 'its compute buffers are not known'}")
    return None


def short_of(model: ModelFit, facts: Facts) -> Finding:
    held = [holder(process) for card in facts.gpu.cards for process in others(card, facts)][:MOST_HOLDERS]
    free = "an unknown amount" if model.free_bytes is None else size(model.free_bytes)
    observed = f"{free} of GPU memory is free"
    if model.layers_on_gpu is not None:
        observed += f"; {model.layers_on_gpu} of {model.layers} layers would lie there"
    if model.problem:
        observed += f"; the engine would not start: {model.problem}"
    needed = "more than is known" if model.needed_bytes is None else size(model.needed_bytes)
    alone = model.needed_bytes is not None and model.total_bytes is not None and model.needed_bytes <= model.total_bytes
    text = "free what others hold, or take one of these ways out" if alone else "take one of these ways out"
    if model.ways:
        text += ": " + "; ".join(way.words for way in model.ways)
    commands = tuple(way.command for way in model.ways)
    return Finding(
        observed,
        f"{needed} for {model.name} with a context of {model.context:,}, with the margin that stays free",
        Remedy(text, commands or (f"llmctl fit {shlex.quote(model.name)}", "llmctl profiles")),
        tuple(held),
        model.name,
        severity(facts),
    )


def figures_disagree(facts: Facts) -> Judgement:
    return tuple(found for model in facts.models.resident if (found := disagreeing(model, facts)) is not None)


def disagreeing(model: ResidentFacts, facts: Facts) -> Finding | None:
    """What /api/ps loses of a sliding-window model is known, and no finding; NVML measures only CUDA's devices."""
    seen, expected = model.witnesses, model.predicted
    if model.loaded is None or seen is None or expected is None or seen.runner_ended:
        return None
    devices = {buffer.device for buffer in seen.buffers or () if not buffer.on_host}
    measured = seen.measured_bytes if all(device.startswith(CUDA) for device in devices) else None
    if measured is not None and expected.total_bytes < measured <= most(expected.total_bytes):
        measured = None
    odd = findings(expected, replace(seen, gpu_process_bytes=measured, gpu_difference_bytes=None))
    # Where the engine could not read its runner's lines, it claims the size of the file.
    if seen.buffers and seen.claim is not None:
        odd += claim_apart(expected, seen.claim.size_vram_bytes, seen.projector_bytes or 0)
    if not odd:
        return None
    return Finding(
        "; ".join(odd),
        f"{size(expected.total_bytes)} on the GPUs, as `fit` computed before the load",
        Remedy(
            "what is measured counts; a model that holds more leaves less for others: look at it, and report it with "
            "the bundle",
            ("llmctl status --json", "llmctl doctor --bundle llmctl.tar.gz"),
        ),
        before(model.name, facts),
        model.name,
    )


def before(name: str, facts: Facts) -> tuple[str, ...]:
    """What the last loads of these weights with this engine and driver came to."""
    try:
        loads = facts.fit.residuals.get(name, ())
    except NotGathered:
        return ()
    return tuple(f"a load before: {size(expected)} predicted, {size(held)} measured" for expected, held in loads)


def no_headroom(facts: Facts) -> Judgement:
    profile = facts.profile.profile
    if profile is None or not gpu_required(facts):
        return None
    pids = {model.runner_pid for model in facts.models.resident if model.runner_pid is not None}
    return tuple(
        without_room(card, profile.gpu.reserve_bytes, facts)
        for card in facts.gpu.cards
        if any(process.pid in pids for process in card.processes)
        and card.free_bytes is not None
        and card.free_bytes < profile.gpu.reserve_bytes * TOLERANCE
    )


def without_room(card: Card, reserve_bytes: int, facts: Facts) -> Finding:
    names = [model.name for model in facts.models.resident]
    return Finding(
        f"{size(card.free_bytes or 0)} are free beside the model",
        f"{size(reserve_bytes)}, the profile's gpu.reserve",
        Remedy(
            "end what else holds memory of the card, or give the model a smaller context or cache type",
            ("nvidia-smi", *(f"llmctl fit {shlex.quote(name)} --table" for name in names[:1])),
        ),
        tuple(holder(process) for process in others(card, facts)[:MOST_HOLDERS]),
        f"GPU {card.index}: {card.name}",
    )


def host_short(facts: Facts) -> Judgement:
    host = facts.host
    if host.available_bytes is None:
        return Unknown("the kernel does not tell how much memory is free")
    lacking = [model for model in facts.fit.models if not model.gpu and model.verdict == "no"]
    if lacking:
        return tuple(host_lacks(model, facts) for model in lacking)
    beside = [
        model.name
        for model in facts.models.resident
        if model.loaded is not None and model.proof is not None and model.proof.place in {"cpu", "partial"}
    ]
    if not beside or host.available_bytes >= LEAST_HOST_BYTES:
        return None
    swap = host.swap_free_bytes or 0
    return Finding(
        f"{size(host.available_bytes)} of host memory can be had without swapping, {size(swap)} of swap is free",
        f"{size(LEAST_HOST_BYTES)} beside a model that lies in host memory",
        Remedy(
            "end what else holds memory, or take a smaller model: when none is left the kernel ends a process",
            ("ps -eo pid,user,rss,comm --sort=-rss", "llmctl profiles"),
        ),
        subject=", ".join(beside),
    )


def host_lacks(model: ModelFit, facts: Facts) -> Finding:
    host = facts.host
    swap = host.swap_free_bytes or 0
    return Finding(
        f"{size(host.available_bytes or 0)} of host memory can be had, and {size(swap)} of swap is free",
        f"{size(model.needed_bytes or 0)} for {model.name} with a context of {model.context:,}",
        Remedy(
            "end what else holds memory, or take a smaller model or context",
            ("ps -eo pid,user,rss,comm --sort=-rss", "llmctl profiles"),
        ),
        subject=model.name,
    )


def out_of_memory(facts: Facts) -> Judgement:
    line, lowered = facts.log.out_of_memory, facts.log.context_lowered
    if line is None:
        return unsaid(facts.log)
    text = line.text.lower()
    # A line need not say whose memory it was; where the engine found no GPU it can only be the host's.
    on_host = ("cpu" in text and "cuda" not in text) or facts.log.gpus == ()
    ways = ways_out(facts)
    what = "host memory" if on_host else "the GPU's memory"
    again = "the model lies where it should now" if on_gpu(facts) else "the same load would fail again"
    return Finding(
        f"{times(line.lately or line.count)}{since(line)} a load or an answer ran out of {what}",
        f"loads and answers that have room; {again}",
        Remedy(
            "give the model less, or free what others hold" + ("" if ways else ": `fit` computes the ways out"),
            ways
            or tuple(f"llmctl fit {shlex.quote(model.name)}" for model in facts.models.resident)
            or ("llmctl fit",),
        ),
        (line.text, *((lowered.text,) if lowered else ())),
        facts.log.source,
        None if line.lately else "info",
    )


def ways_out(facts: Facts) -> tuple[str, ...]:
    try:
        fit = facts.fit
    except NotGathered:
        return ()
    return tuple(way.command for model in fit.models for way in model.ways) or tuple(way.command for way in fit.smaller)


def not_recovered(facts: Facts) -> Judgement:
    line = facts.log.memory_not_recovered or facts.log.memory_not_refreshed
    if line is None:
        return unsaid(facts.log)
    return Finding(
        f"{times(line.lately or line.count)}{since(line)} the GPU's memory did not come back, or was not told, after a "
        "model was unloaded",
        "memory that is free when its runner has ended",
        Remedy(
            "look for a runner that was left behind, and start the server anew",
            ("llmctl doctor server", "nvidia-smi", *restarted(facts)),
        ),
        (line.text,),
        facts.log.source,
        None if line.lately else "info",
    )


CHECKS = (
    Check(
        "memory.does-not-fit",
        "The model does not fit into the GPU's free memory",
        "error",
        "What `llmctl fit` says of each resident model that is not proved on a GPU, with the memory that is free "
        "now; what this server's own runners hold counts as free, as the engine evicts them. The processes that hold "
        "the rest are named, and the ways out are those of `fit`.",
        does_not_fit,
        after=NO_GPU,
    ),
    Check(
        "memory.host-short",
        "Host memory is short",
        "warning",
        "A model without a GPU, and the part that does not fit on one, lie in host memory. Ollama 0.30 and newer "
        "loads them without asking whether there is room (ollama v0.33.0 server/sched.go), and the kernel then swaps "
        "or ends a process. MemAvailable and SwapFree of /proc/meminfo.",
        host_short,
    ),
    Check(
        "memory.out-of-memory",
        "The engine ran out of memory",
        "warning",
        "The texts by which the engine itself knows that a device or the host ran out (ollama v0.33.0 "
        "llm/status.go:85-96) in its log since its start. An answer that runs out unloads every model "
        "(server/sched.go:1632-1661).",
        out_of_memory,
        after=("memory.does-not-fit",),
    ),
    Check(
        "memory.no-headroom",
        "The GPU has no memory to spare",
        "warning",
        "What is free on the model's cards beside it, against the profile's gpu.reserve. The driver, the display and "
        "a longer prompt take memory after the load, and an answer that finds none ends with an error.",
        no_headroom,
    ),
    Check(
        "memory.figures-disagree",
        "The memory figures disagree",
        "warning",
        "What `fit` predicted, beside the sum of the runner's own lines (1 MiB apart), what /api/ps claims and what "
        "NVML measures of the process (2 % apart). What earlier loads came to is kept in learnt.json. That /api/ps "
        "loses one cache line of sliding-window models (ollama v0.34.0 llm/llama_server.go, memoryParsingWriter) is "
        "known and not counted.",
        figures_disagree,
    ),
    Check(
        "memory.not-recovered",
        "GPU memory did not come back",
        "warning",
        "The engine waits for the memory of a model that it unloaded. It logs `unable to refresh free memory` "
        "(ollama v0.34.0 discover/runner.go:364) and, with debug logging, `gpu VRAM usage didn't recover within "
        "timeout` (server/sched.go:1492; issues 12922 and 7606): often a runner was left behind.",
        not_recovered,
    ),
)
