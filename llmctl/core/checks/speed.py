"""Checks of the speed."""

from __future__ import annotations

import shlex

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.speed import ModelSpeed
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.gpu_work import WORDS, rivals
from llmctl.core.checks.wanted import anew_without

DEBUG = "OLLAMA_DEBUG"
GO_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
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


def slow(facts: Facts) -> Judgement:
    told = [model for model in facts.speed.models if seen_of(model, facts) is not None]
    if not told:
        return Unknown("no answer was measured here yet: `llmctl ask` does, and doctor --deep")
    known = [model for model in told if model.expected_least is not None]
    if not known:
        return Unknown("how fast the device that it lies on could be is not known")
    return tuple(found for model in known if (found := too_slow(model, facts)) is not None)


def seen_of(model: ModelSpeed, facts: Facts) -> float | None:
    """Of the last answers, else of the probe of --deep."""
    if model.tokens_per_second is not None:
        return model.tokens_per_second
    try:
        return facts.deep.tokens_per_second
    except NotGathered:
        return None


def too_slow(model: ModelSpeed, facts: Facts) -> Finding | None:
    seen, least = seen_of(model, facts), model.expected_least
    if seen is None or least is None:
        return None
    share = SLOW_ON_GPU if model.place == "gpu" else SLOW_IN_PART
    if seen >= min(least, MOST_TOLD) * share:
        return None
    most = f" to {model.expected_most:,.0f}" if model.expected_most else ""
    return Finding(
        f"{seen:,.1f} tokens/s ({counted(model)}) where it lies now ({where(model)})",
        f"{least:,.0f}{most} tokens/s ({model.basis})",
        Remedy(
            "mend what is named in the evidence, the largest share first, and measure anew",
            ("llmctl doctor gpu memory", f"llmctl ask -m {shlex.quote(model.name)} --stats 'Count from 1 to 50.'"),
        ),
        reasons(model, facts),
        model.name,
    )


def counted(model: ModelSpeed) -> str:
    return f"the middle of {model.answers} answers" if model.answers else "one probe"


def where(model: ModelSpeed) -> str:
    return {"gpu": "on the GPU", "partial": "in part in host memory", "cpu": "in host memory"}[model.place]


def reasons(model: ModelSpeed, facts: Facts) -> tuple[str, ...]:
    """What makes it slow, each with its share of a token's time, or that the share is not known."""
    found = []
    if model.place == "partial":
        found.append(f"offloaded layers: {percent(model.host_share)} of a token's time goes to host memory")
    if model.cache_share:
        found.append(
            f"a context that is full takes {percent(model.cache_share)} of a token's time; how full it was is not known"
        )
    found += of_cards(facts)
    if debugging(facts):
        found.append("debug logging is on; its share is not known")
    return tuple(found) or ("none of the causes that doctor knows was seen",)


def of_cards(facts: Facts) -> list[str]:
    try:
        cards = facts.gpu.cards
    except NotGathered:
        return []
    found = []
    for card in cards:
        if card.throttled:
            words = "; ".join(WORDS[reason] for reason in card.throttled)
            share = "its share is not known"
            if card.clock and card.clock_most and card.clock < card.clock_most:
                share = f"{card.clock} of {card.clock_most} MHz, {percent(1 - card.clock / card.clock_most)} less"
            found.append(f"GPU {card.index}: {words}: {share}")
        if card.pcie_width and card.pcie_width_most and card.pcie_width < card.pcie_width_most:
            found.append(
                f"GPU {card.index}: PCIe x{card.pcie_width} of x{card.pcie_width_most}, which counts for what lies in "
                "host memory and between cards; its share is not known"
            )
        # Where the numbers are not known, one of them may be our own runner.
        beside = rivals(card, facts) if facts.gpu.pids_known else []
        if beside:
            names = ", ".join(one.name for one in beside[:3])
            found.append(f"GPU {card.index}: {names} compute there too; their share is not known")
    return found


def percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{100 * share:.0f} %"


def slower_than_before(facts: Facts) -> Judgement:
    return tuple(
        Finding(
            f"{model.tokens_per_second:,.1f} tokens/s in the last answers, {where(model)}",
            f"{model.best_tokens_per_second:,.1f} tokens/s, which this machine has shown of the same model there",
            Remedy(
                "see what has changed since: heat, other programs, driver, engine; an upgrade of the engine can be "
                "rolled back",
                ("llmctl doctor gpu speed", "llmctl engine list"),
            ),
            reasons(model, facts),
            model.name,
        )
        for model in facts.speed.models
        if model.answers >= FEW
        and model.tokens_per_second is not None
        and model.best_tokens_per_second is not None
        and model.tokens_per_second < model.best_tokens_per_second * FEWER
    )


def first_token(facts: Facts) -> Judgement:
    measured = [model for model in facts.speed.models if model.first_tokens]
    if not measured:
        return Unknown("no first token of a longer prompt was measured here yet")
    known = [model for model in measured if model.first_token_most is not None and model.first_token_tokens]
    if not known:
        return Unknown("how soon this device could answer is not known")
    return tuple(found for model in known if (found := late(model, facts)) is not None)


def late(model: ModelSpeed, facts: Facts) -> Finding | None:
    """Of the answer in the middle, by seconds for each token of its prompt."""
    most = model.first_token_most
    if most is None:
        return None
    ordered = sorted(model.first_tokens, key=lambda one: one[1] / max(1, one[0]))
    tokens, seconds = ordered[len(ordered) // 2]
    expected = most * tokens / model.first_token_tokens
    if seconds <= expected * LATE + LATE_SECONDS:
        return None
    return Finding(
        f"{seconds:.1f} s until the first token of {tokens:,} tokens of prompt (the middle of {len(ordered)} answers)",
        f"{expected:.1f} s at most ({model.basis})",
        Remedy(
            "mend what is named in the evidence, and measure anew",
            (
                "llmctl doctor gpu memory",
                # As many tokens as a first one is measured from.
                f"seq 1 500 | llmctl ask -m {shlex.quote(model.name)} --stats 'Which number is the last one?'",
            ),
        ),
        reasons(model, facts),
        model.name,
    )


def debugging(facts: Facts) -> bool:
    """Whether the server's log or environment says so."""
    try:
        if facts.log.debug:
            return True
    except NotGathered:
        pass
    try:
        process = facts.server.process
    except NotGathered:
        return False
    return process is not None and is_level(process.environ.get(DEBUG, ""))


def is_level(value: str) -> bool:
    """A Go bool that is true, or a number but 0 (ollama v0.34.0 envconfig/config.go:201)."""
    plain = value.strip().strip("'\"")
    return plain in GO_TRUE or (plain.lstrip("+-").isdigit() and int(plain) != 0)


def debug_logging(facts: Facts) -> Judgement:
    if not debugging(facts):
        return None
    server = facts.server
    value = server.process.environ.get(DEBUG) if server.process else None
    return Finding(
        f"{DEBUG}={value} in the server's environment" if value else "the server's log has lines of level DEBUG",
        "unset: every step of every request is written to the log",
        Remedy("start the server without it", anew_without(DEBUG, facts)),
        subject=f"pid {server.pid}" if server.pid else "",
    )


CHECKS = (
    Check(
        "speed.slow",
        "Answers are slower than this machine allows",
        "warning",
        "Tokens a second of the last answers beside the roofline of where the model lies: the bytes that a token "
        "reads, by the runner's own lines, over the memory bandwidth in the makers' data sheets. Slow is less than "
        "half of the lower end on a GPU, and less than a tenth of it where layers lie in host memory; of a CPU alone "
        "nothing is said. Each cause is told with its share of a token's time, or that the share is not known.",
        slow,
    ),
    Check(
        "speed.slower-than-before",
        "Answers are slower than they were",
        "warning",
        "The middle of the last five answers beside the best such middle that the same weights in the same place "
        "showed on this machine. llmctl keeps these numbers in learnt.json, and no word of a prompt.",
        slower_than_before,
        after=("speed.slow",),
    ),
    Check(
        "speed.first-token",
        "The first token comes late",
        "warning",
        "Seconds from the granted runner to the first token, of prompts of 256 tokens and more, beside the "
        "arithmetic that such a prompt is on this card. Loading and waiting for others are left out.",
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
