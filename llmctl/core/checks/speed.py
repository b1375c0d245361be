"""Checks of the speed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.speed import ModelSpeed
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import unsaid_at_start
from llmctl.core.checks.speed_cards import deep_of
from llmctl.core.checks.speed_cause import FIRST, TOKEN, told
from llmctl.core.checks.speed_shares import (
    DEBUG,
    debugging,
    first_commands,
    is_level,
    of_first_token,
    of_token,
)
from llmctl.core.checks.wanted import anew_without
from llmctl.core.memory.token_time import copies, usual_link_seconds

# A token costs some milliseconds beside what it reads, which the roofline leaves out: from so many tokens a second on
# it says nothing about a slow answer.
MOST_TOLD = 100.0
# Slow is less than this share of the roofline's lower end. Host memory and cores are of very different speeds, so for
# what lies there the roofline is only an order of magnitude.
SLOW_ON_GPU, SLOW_IN_PART = 0.5, 0.1
FEWER = 0.6
FEW = 5
# The first token may wait for the prompt before it, and for a clock that wakes up.
LATE, LATE_SECONDS = 4.0, 2.0
MEND = "mend what is named in the evidence, the largest share first, and measure anew"


def slow(facts: Facts) -> Judgement:
    measured = [model for model in facts.speed.models if seen_of(model, facts) is not None]
    if not measured:
        return Unknown("no answer was measured here yet: `llmctl ask` does, and doctor --deep")
    known = [model for model in measured if model.expected_least is not None]
    found = tuple(found for model in known if (found := too_slow(model, facts)) is not None)
    return found or untold(measured, known, "how fast it could be where it lies is not known")


def untold(measured: Sequence[ModelSpeed], known: Sequence[ModelSpeed], why: str) -> Unknown | None:
    """That nothing is said of what was measured but cannot be compared."""
    first = next((model for model in measured if model not in known), None)
    if first is None:
        return None
    return Unknown((f"{first.name}: " if known else "") + (first.unknown or why))


def seen_of(model: ModelSpeed, facts: Facts) -> float | None:
    """Of the last answers, else of the probe of --deep. None is no speed, and a 0 is none."""
    deep = deep_of(facts)
    probed = deep.tokens_per_second if deep is not None and deep.asked == model.name else None
    return model.tokens_per_second or probed or None


def too_slow(model: ModelSpeed, facts: Facts) -> Finding | None:
    seen, least = seen_of(model, facts), model.expected_least
    if seen is None or least is None:
        return None
    share = SLOW_ON_GPU if model.place == "gpu" else SLOW_IN_PART
    if seen >= min(least, MOST_TOLD) * share:
        return None
    most = f" to {model.expected_most:,.0f}" if model.expected_most else ""
    causes = of_token(model, facts, seen, probed=not model.answers)
    return Finding(
        f"{seen:,.1f} tokens/s ({counted(model)}) where it lies now ({where(model)})",
        f"{least:,.0f}{most} tokens/s ({model.basis})",
        Remedy(MEND, (*first_commands(causes, facts), asked(model))),
        told(causes, TOKEN),
        model.name,
    )


def asked(model: ModelSpeed) -> str:
    return f"llmctl ask -m {shlex.quote(model.name)} --stats 'Count from 1 to 50.'"


def counted(model: ModelSpeed) -> str:
    return f"the middle of {model.answers} answers" if model.answers else "one probe"


def where(model: ModelSpeed) -> str:
    return {"gpu": "on the GPU", "partial": "in part in host memory", "cpu": "in host memory"}[model.place]


def slower_than_before(facts: Facts) -> Judgement:
    return tuple(found for model in facts.speed.models if (found := slower(model, facts)) is not None)


def slower(model: ModelSpeed, facts: Facts) -> Finding | None:
    now, best = model.tokens_per_second, model.best_tokens_per_second
    if model.answers < FEW or not now or best is None or without_context(model, now) >= best * FEWER:
        return None
    causes = of_token(model, facts, now, probed=False)
    return Finding(
        f"{now:,.1f} tokens/s in the last answers, {where(model)}",
        f"{best:,.1f} tokens/s, which this machine has shown of the same model there",
        Remedy(
            "mend what is named in the evidence, the largest share first; else see what has changed since: heat, other "
            "programs, driver, engine, which can be rolled back",
            (*first_commands(causes, facts), "llmctl engine list"),
        ),
        told(causes, TOKEN),
        model.name,
    )


def without_context(model: ModelSpeed, now: float) -> float:
    """How fast it would be with an empty context, at least: that longer ones are slower is no fault."""
    if model.used_tokens is None:
        return now
    if model.time is not None:
        weights = model.time.gpu.least + model.time.host.least
        rest = min(1 / now, max(1 / now - model.time.cache.least, weights))
    else:
        rest = (1 - (model.cache_share or 0.0)) / now
    # Where nothing but the cache is read nothing is left of it.
    return 1 / rest if rest > 0 else math.inf


def first_token(facts: Facts) -> Judgement:
    measured = [model for model in facts.speed.models if model.first_tokens]
    if not measured:
        return Unknown("no first token of a longer prompt was measured here yet")
    known = [model for model in measured if model.prompt_seconds is not None and model.time is not None]
    found = tuple(found for model in known if (found := late(model, facts)) is not None)
    return found or untold(measured, known, "how soon it could answer where it lies is not known")


def late(model: ModelSpeed, facts: Facts) -> Finding | None:
    """Of the answer in the middle, by seconds for each token of its prompt."""
    ordered = sorted(model.first_tokens, key=lambda one: one[1] / max(1, one[0]))
    tokens, seconds = ordered[len(ordered) // 2]
    expected = first_token_most(model, tokens)
    if expected is None or seconds <= expected * LATE + LATE_SECONDS:
        return None
    causes = of_first_token(model, facts, tokens, seconds)
    # As many tokens as a first one is measured from.
    again = f"seq 1 500 | llmctl ask -m {shlex.quote(model.name)} --stats 'Which number is the last one?'"
    return Finding(
        f"{seconds:.1f} s until the first token of {tokens:,} tokens of prompt (the middle of {len(ordered)} answers)",
        f"{expected:.2f} s at most ({model.basis})",
        Remedy(MEND, (*first_commands(causes, facts), again)),
        told(causes, FIRST),
        model.name,
    )


def first_token_most(model: ModelSpeed, tokens: int) -> float | None:
    """Seconds until the first token by the roofline's slow end: the prompt's arithmetic, the copies of what lies in
    host memory over a usual link, with every expert, and a token itself."""
    time, prompt = model.time, model.prompt_seconds
    if time is None or prompt is None:
        return None
    copied = model.host_weights_bytes * copies(tokens, model.batch) if model.place == "partial" else 0
    token = time.gpu.most + time.host.most + time.cache.most
    return prompt.most * tokens + usual_link_seconds(copied).most + token


def debug_logging(facts: Facts) -> Judgement:
    server = facts.server
    if not debugging(facts):
        seen = server.process is not None and server.process.environ
        return unsaid_at_start(facts.log) if server.answers and not seen else None
    value = server.process.environ.get(DEBUG, "") if server.process else ""
    return Finding(
        f"{DEBUG}={value} in the server's environment" if is_level(value) else "the server's log says " + logged(facts),
        "unset: every step of every request is written to the log",
        Remedy("start the server without it", anew_without(DEBUG, facts)),
        subject=f"pid {server.pid}" if server.pid else "",
    )


def logged(facts: Facts) -> str:
    """What the server took the variable for, of its line `server config`."""
    return f"{DEBUG}:{(facts.log.config or {}).get(DEBUG, '')}, as it started"


CHECKS = (
    Check(
        "speed.slow",
        "Answers are slower than this machine allows",
        "warning",
        "Tokens a second of the last answers beside the roofline of where the model lies: the bytes that a token "
        "reads, by the runner's own lines, over the memory bandwidth in the makers' data sheets. The runner's own log "
        "tells which card each of its devices is (`using device`, llama.cpp b10760 src/llama.cpp:305). Slow is less "
        "than half of the lower end on a GPU, and less than a tenth of it where layers lie in host memory; of a CPU "
        "alone nothing is said. Each cause is told with its share of a token's time, the largest first, and what is "
        "left: layers and cache by their bytes, clocks beside their maximum, PCIe by the activations that cross it, "
        "other programs by NVML's samples of each process, debug logging by what the server computes while --deep "
        "makes the model answer. A bound is marked `at most`, and what is not known is said to be so.",
        slow,
    ),
    Check(
        "speed.slower-than-before",
        "Answers are slower than they were",
        "warning",
        "The middle of the last five answers beside the best such middle that the same weights in the same place "
        "showed on this machine. What the context takes by its bytes is left out: longer ones are slower. llmctl keeps "
        "these numbers in learnt.json, and no word of a prompt.",
        slower_than_before,
        after=("speed.slow",),
    ),
    Check(
        "speed.first-token",
        "The first token comes late",
        "warning",
        "Seconds from the granted runner to the first token, of prompts of 256 tokens and more, beside the "
        "arithmetic that such a prompt is on this card. Loading and waiting for others are left out. Layers in host "
        "memory are copied to the card for each batch of 32 tokens and more (llama.cpp b10760 "
        "ggml/src/ggml-cuda/ggml-cuda.cu:5540,5711), so there the PCIe link counts, with its share.",
        first_token,
        after=("speed.slow",),
    ),
    Check(
        "speed.debug-logging",
        "The server logs for debugging",
        "info",
        "OLLAMA_DEBUG makes the server write every step of every request (ollama v0.34.0 envconfig/config.go:201). "
        "It costs time and disk, and is easily forgotten.",
        debug_logging,
    ),
)
