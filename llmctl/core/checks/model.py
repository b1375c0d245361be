"""Checks of the models: there, where they must be, as they must be."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.checks.causes import NO_GPU, NO_LOCK, NO_SERVER, PINS_BROKEN
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.models import ResidentFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.model_gone import DIGITS, NOT_ASKED, is_there, load_failed, not_resident, short
from llmctl.core.checks.wanted import restarted
from llmctl.core.checks.words import names, size
from llmctl.core.guard.facts import Limits
from llmctl.core.pin import name_key


def there(facts: Facts) -> list[ResidentFacts]:
    """The resident models that are loaded. NotGathered where the server does not tell."""
    if not facts.models.asked:
        raise NotGathered(NOT_ASKED)
    return [model for model in facts.models.resident if is_there(model)]


def on_cpu(facts: Facts) -> Judgement:
    if facts.models.require == "none":
        return None
    return [misplaced(facts, model) for model in there(facts) if model.proof and model.proof.place == "cpu"]


def partial(facts: Facts) -> Judgement:
    if facts.models.require != "full":
        return None
    return [misplaced(facts, model) for model in there(facts) if model.proof and model.proof.place == "partial"]


def misplaced(facts: Facts, model: ResidentFacts) -> Finding:
    entry = model.loaded
    assert entry is not None
    on_gpus, whole = entry.size_vram_bytes, entry.size_bytes
    if on_gpus and whole:
        observed = f"{size(on_gpus)} of {size(whole)} on GPUs ({100 * on_gpus // whole} %), the rest in host memory"
    else:
        observed = "all of it in host memory, nothing on a GPU"
    return Finding(
        observed,
        "all of it on GPUs" if facts.models.require == "full" else "at least a part of it on a GPU",
        Remedy("see whether it fits, and load it anew once it does", ("llmctl fit", *restarted(facts))),
        (*buffer_words(model), *device_words(facts)),
        model.name,
    )


def buffer_words(model: ResidentFacts) -> Sequence[str]:
    """What the runner printed, added up for each device."""
    sums: dict[str, int] = {}
    for buffer in (model.witnesses.buffers or ()) if model.witnesses else ():
        sums[buffer.device] = sums.get(buffer.device, 0) + buffer.size_bytes
    told = ", ".join(f"{device} {size(count)}" for device, count in sums.items())
    return (f"buffers of pid {model.runner_pid}: {told}",) if sums else ()


def device_words(facts: Facts) -> Sequence[str]:
    """What the server found when it looked for GPUs."""
    try:
        found = facts.log.gpus
    except NotGathered:
        return ()
    if found is None:
        return ()
    return (f"the server found {names(found)}" if found else "the server found no GPU when it started",)


def unproved(facts: Facts) -> Judgement:
    return [
        Finding(
            "; ".join(model.proof.reasons),
            "the runner's buffer lines or NVML, which show where it lies",
            Remedy(
                "let this user read the log, or have llmctl run the server: then its log is llmctl's",
                ("llmctl status", f"{facts.server.root} doctor model{facts.server.which}"),
            ),
            subject=model.name,
        )
        for model in there(facts)
        if model.proof is not None and model.proof.verdict == "unverified"
    ]


def wrong_context(facts: Facts) -> Judgement:
    up = facts.server.up
    return [
        Finding(
            f"{model.loaded.context:,} tokens",
            f"{model.context:,} tokens, as the profile asks",
            Remedy(
                "load it as the profile asks, and find the client that sends num_ctx: each such request loads it anew",
                (up,),
                safe=up.startswith("llmctl "),
            ),
            (f"/api/ps: {model.loaded.name}, context_length {model.loaded.context}",),
            model.name,
        )
        for model in there(facts)
        if model.loaded is not None and model.loaded.context is not None and model.loaded.context != model.context
    ]


def wrong_digest(facts: Facts) -> Judgement:
    return [
        Finding(
            f"{other.name} is loaded with weights {short(other.weights_digest or '')}",
            f"weights {short(model.weights_digest)}, which are pinned for {model.name}",
            Remedy("see which names stand for other weights, and put them right", ("llmctl verify", "llmctl repair")),
            (f"/api/ps: {other.name}, digest {other.digest[:DIGITS]}",),
            model.name,
        )
        for model in facts.models.resident
        for other in facts.models.loaded
        if model.weights_digest is not None
        and other.weights_digest not in {None, model.weights_digest}
        and name_key(other.name) in {name_key(name) for name in (model.alias, model.served, model.name) if name}
    ]


def no_token(facts: Facts) -> Judgement:
    deep, slow = facts.deep, Limits().slow_seconds
    if deep.answer_error is None and deep.answer_seconds is None:
        return Unknown("no model that could be asked is loaded and idle")
    if deep.answer_error is not None:
        observed = deep.answer_error
    elif deep.answer_seconds is not None and deep.answer_seconds > slow:
        observed = f"the first token came after {deep.answer_seconds:.1f} s"
    else:
        return None
    return Finding(
        observed,
        f"one token within {slow:.0f} s, from a model that is loaded and idle",
        Remedy(
            "see what the runner says, and start the server anew",
            ("llmctl logs -n 100", *restarted(facts)),
        ),
        subject=deep.asked or "",
    )


SERVER = (*NO_LOCK, *NO_SERVER)

CHECKS = (
    Check(
        "model.wrong-digest",
        "Other weights are loaded under its name",
        "error",
        "A name can come to stand for other weights: a tag that moved and was pulled again, an alias that was made "
        "anew. The weights behind every line of /api/ps are compared with the pinned ones, by the blob that its "
        "manifest names.",
        wrong_digest,
        after=(*SERVER, "store.drift"),
    ),
    Check(
        "model.load-failed",
        "The engine cannot load the model",
        "error",
        "Where a model that must be resident is not loaded, the engine's own word on its last load, if that failed "
        "within the last hour: `Load failed` or `failed to load model metadata` in the log, with the model's file "
        "(ollama v0.34.0 server/sched.go:641 and 529). A load that found no memory is told of by memory.out-of-memory.",
        load_failed,
        after=(*SERVER, *NO_GPU, *PINS_BROKEN, "engine.no-llama-server", "server.held"),
    ),
    Check(
        "model.not-resident",
        "The model is not loaded",
        "error",
        "Every model that the profile keeps resident must be in /api/ps, with a runner that lives: the server goes on "
        "showing a model whose runner has ended until the next request (ollama v0.34.0, seen). What is loaded in its "
        "place is named.",
        not_resident,
        after=(
            *SERVER,
            *NO_GPU,
            *PINS_BROKEN,
            *("engine.no-llama-server", "memory.does-not-fit", "server.orphaned-runner", "server.held"),
        ),
    ),
    Check(
        "model.on-cpu",
        "The model runs on the CPU",
        "error",
        "Ollama goes on without a word when a model does not fit on the GPU, or when it finds none. Where it lies is "
        "told by /api/ps together with the runner's buffer lines or NVML; /api/ps alone says `100 % GPU` where it "
        "could not read them (ollama v0.33.0 llm/llama_server.go:2669-2676).",
        on_cpu,
        after=(*SERVER, *NO_GPU, "memory.does-not-fit", "server.stuck-runner"),
    ),
    Check(
        "model.partial",
        "Only a part of the model is on GPUs",
        "error",
        "Since 0.30 llama.cpp decides how many layers go to the GPU, and the rest runs on the CPU without an error; "
        "every token then waits for host memory. `size_vram` below `size` in /api/ps shows it.",
        partial,
        after=(*SERVER, *NO_GPU, "memory.does-not-fit", "server.stuck-runner"),
    ),
    Check(
        "model.unproved",
        "Nothing shows where the model lies",
        "warning",
        "/api/ps alone proves nothing about the place. The second witness is the runner's buffer lines in the server's "
        "log, or NVML's memory of the runner; here neither can be read.",
        unproved,
        after=(*SERVER, *NO_GPU, "server.stuck-runner"),
    ),
    Check(
        "model.wrong-context",
        "The model is loaded with another context",
        "error",
        "A request with `num_ctx` loads the model anew with that context, for everybody (ollama v0.34.0 "
        "server/sched.go:1381-1431): prompts are then cut at another length, and the memory is another one.",
        wrong_context,
        after=(*SERVER, "server.context", "clients.reloads"),
    ),
    Check(
        "model.no-token",
        "The model does not answer",
        "error",
        "With --deep the model is asked for a few tokens, without anything that would load it anew. The first must "
        "come within 30 s. This is the third level of health, above a living process and a loaded model.",
        no_token,
        after=(*SERVER, "server.stuck-runner", "model.not-resident"),
        deep=True,
    ),
)
