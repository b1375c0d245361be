"""Why a model that must be resident is not there: it was never loaded, it went, or the engine cannot load it."""

from __future__ import annotations

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.log import FailedLoad
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.finding import Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import unsaid
from llmctl.core.checks.words import names, size
from llmctl.core.placement import is_out_of_memory

DIGITS = 12
NOT_ASKED = "the server does not tell what it has loaded"


def gone(facts: Facts) -> list[ResidentFacts]:
    """Without a pin `up` has not got it yet, and nothing is missing."""
    return [model for model in facts.models.resident if model.weights_digest is not None and not is_there(model)]


def load_failed(facts: Facts) -> Judgement:
    if not facts.models.asked:
        return Unknown(NOT_ASKED)
    missed = gone(facts)
    if not missed:
        return None
    found = [failed(facts, model, failure) for model in missed if (failure := failure_of(facts, model)) is not None]
    return found or unsaid(facts.log)


def failed(facts: Facts, model: ResidentFacts, failure: FailedLoad) -> Finding:
    return Finding(
        failure.error or "the load ended with an error",
        f"{model.alias} loaded, with a context of {model.context:,} tokens",
        Remedy(
            "look whether its files are whole, and whether this engine knows such models; then load it again",
            ("llmctl verify", "llmctl logs -n 200", facts.server.up),
        ),
        (f"{facts.log.source}: the last load of weights {short(failure.weights_digest)} failed",),
        model.name,
    )


def failure_of(facts: Facts, model: ResidentFacts) -> FailedLoad | None:
    """What became of its last load within the hour, where that failed and not for want of memory, which is told of
    elsewhere."""
    log = facts.log
    known = [one for one in log.failed if one.weights_digest == model.weights_digest and log.is_lately(one.at_seconds)]
    return next((one for one in known if not is_out_of_memory(one.error)), None)


def not_resident(facts: Facts) -> Judgement:
    models = facts.models
    if not models.asked:
        return Unknown(NOT_ASKED)
    missed = gone(facts)
    loading = [model.name for model in missed if model.loaded is None and is_loading(facts, model)]
    refused = [model.name for model in missed if logged_failure(facts, model)]
    found = [missing(facts, models, model) for model in missed if model.name not in (*loading, *refused)]
    return found or (Unknown(f"{names(loading)} is being loaded") if loading else None)


def logged_failure(facts: Facts, model: ResidentFacts) -> bool:
    try:
        return failure_of(facts, model) is not None
    except NotGathered:
        return False


def evicted(facts: Facts) -> tuple[str, ...]:
    """The line in which the server says that it made room for another model, within the last hour."""
    try:
        line = facts.log.evicting
    except NotGathered:
        return ()
    return (line.text,) if line is not None and line.lately else ()


def is_there(model: ResidentFacts) -> bool:
    """/api/ps goes on showing a model whose runner has ended."""
    return model.loaded is not None and not (model.witnesses is not None and model.witnesses.runner_ended)


def is_loading(facts: Facts, model: ResidentFacts) -> bool:
    """A runner with its weights is there, and /api/ps shows a model only once it has loaded."""
    return facts.server.runner_of(model.weights_digest) is not None


def missing(facts: Facts, models: ModelsFacts, model: ResidentFacts) -> Finding:
    others = [loaded(other) for other in models.others]
    if model.loaded is not None:
        observed = "its runner has ended, and the server still shows it"
    else:
        observed = f"{names(others)} in its place" if others else "no model is loaded"
    up = facts.server.up
    return Finding(
        observed,
        f"{model.alias} loaded, with a context of {model.context:,} tokens",
        Remedy("load it, and prove where it lies", (up,), safe=up.startswith("llmctl ")),
        (*((f"the server has no model {model.alias}",) if model.alias_state == "gone" else ()), *evicted(facts)),
        model.name,
    )


def loaded(model: LoadedFacts) -> str:
    where = f", {size(model.size_vram_bytes)} on GPUs" if model.size_vram_bytes else ""
    context = f" (context {model.context:,}{where})" if model.context else ""
    return f"{model.name}{context}"


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGITS]
