"""Why an answer is slow: every cause that is seen, with its share of the time."""

from __future__ import annotations

import re
import shlex

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.speed import ModelSpeed
from llmctl.core.checks.speed_cards import Link, competing, deep_of, link_of, throttled
from llmctl.core.checks.speed_cause import Cause, largest, ordered, percent, words
from llmctl.core.checks.wanted import anew_without
from llmctl.core.checks.words import size
from llmctl.core.memory.token_time import Span, copies, link_seconds, usual_link_seconds
from llmctl.core.serving import GO_TRUE, as_read

DEBUG = "OLLAMA_DEBUG"
LEVEL = re.compile(r"\+?0*[1-9][0-9]*")
# From so much of its context on an answer is soon cut.
NEAR_FULL = 0.9


def of_token(model: ModelSpeed, facts: Facts, tokens_per_second: float, *, probed: bool) -> tuple[Cause, ...]:
    """`probed`: the speed is the probe's, whose context was a few tokens."""
    seconds, time = 1 / tokens_per_second, model.time
    found = [] if probed else context(model, seconds)
    base, part = 0.0, 1.0
    if time is not None:
        base = time.gpu.over(seconds).least
        found.append(Cause("reading the weights on the GPU", time.gpu.over(seconds), "as every token does"))
    if time is not None and model.place == "partial":
        host = time.host.over(seconds)
        part = 1 - host.least
        detail = f"{size(model.host_read_bytes)} a token are read from host memory"
        found.append(Cause("offloaded layers", host, detail, fitted(model)))
    found += throttled(model, facts, base, part, "memory")
    return ordered([*found, *crossing(model, facts, seconds), *competing(model, facts), *debug(model, facts)])


def of_first_token(model: ModelSpeed, facts: Facts, tokens: int, seconds: float) -> tuple[Cause, ...]:
    found = copying(model, facts, tokens, seconds)
    base, part = 0.0, 1 - min(1.0, sum(cause.share.least for cause in found if cause.share is not None))
    if model.prompt_seconds is not None:
        work = Span(model.prompt_seconds.least * tokens, model.prompt_seconds.most * tokens).over(seconds)
        base = work.least
        found.append(Cause("the arithmetic of the prompt", work, "as every prompt takes it"))
    found += [*throttled(model, facts, base, part, "SM"), *competing(model, facts)]
    if debugging(facts):
        found.append(Cause("debug logging", None, "a prompt's part of it is not measured", anew_without(DEBUG, facts)))
    return ordered(found)


def first_commands(causes: tuple[Cause, ...], facts: Facts) -> tuple[str, ...]:
    """Of the largest cause; where none is known, what looks for one."""
    found = largest(causes)
    if found is not None:
        return found.commands
    deeper = any(cause.share is None for cause in causes) and deep_of(facts) is None
    return ("llmctl doctor speed --deep",) if deeper else ("llmctl doctor gpu memory",)


def fitted(model: ModelSpeed) -> tuple[str, ...]:
    return (f"llmctl fit {shlex.quote(model.name)}",)


def context(model: ModelSpeed, seconds: float) -> list[Cause]:
    """By the cache that a token reads. In the middle of an answer it is less full than at its end."""
    used, remedy = model.used_tokens, (f"llmctl fit {shlex.quote(model.name)} --table",)
    filled = f"{used or 0:,} of {model.context:,} tokens at the end of an answer"
    if used is not None and used >= model.context * NEAR_FULL:
        filled += ", near full"
    if model.time is None:
        if used is None or not model.cache_share:
            return []
        return [
            Cause("the context", None, f"it is {percent(model.cache_share)} of what a token reads, {filled}", remedy)
        ]
    share = Span(0.0, model.time.cache.over(seconds).most)
    if not share.most:
        return []
    if used is None:
        return [Cause("the context", None, f"how full it was was not noted; a full one takes {words(share)}", remedy)]
    return [Cause("the context", share, filled, remedy)]


def crossing(model: ModelSpeed, facts: Facts, seconds: float) -> list[Cause]:
    """What a token sends over PCIe, where layers lie on both sides or the link is not what it could be."""
    found = link_of(model, facts)
    if found is None or not (model.place == "partial" or found.narrow):
        return []
    most = link_seconds(model.crossing_bytes, *found.now)
    if most is None or not model.crossing_bytes:
        return [Cause(found.words, None, "what crosses it for a token is not known", found.commands)]
    detail = f"{model.crossing_bytes / 1e6:.1f} MB cross it for a token, or less"
    return [Cause(found.words, Span(0.0, most.over(seconds).most), detail, found.commands)]


def copying(model: ModelSpeed, facts: Facts, tokens: int, seconds: float) -> list[Cause]:
    """Of a prompt: the weights in host memory go to a card for each batch of it, so the link counts. Of experts only
    those that are asked for (llama.cpp b10760 ggml/src/ggml-backend.cpp:1701)."""
    times, found = copies(tokens, model.batch), link_of(model, facts)
    if model.place != "partial" or not model.host_weights_bytes:
        return []
    best = over_link(model, times, found.best if found else (None, None))
    detail = f"{size(model.host_weights_bytes)} are copied to the card, once for each {model.batch} tokens"
    causes = [Cause("offloaded layers", best.over(seconds), detail, fitted(model))]
    if found is not None and found.narrow:
        causes.append(narrowed(found, best, over_link(model, times, found.now), seconds))
    return causes


def over_link(model: ModelSpeed, times: int, link: tuple[int | None, int | None]) -> Span:
    """Seconds of the copies; over a usual link where this one is not known."""
    sizes = model.host_read_bytes * times, model.host_weights_bytes * times
    least, most = (link_seconds(size_bytes, *link) or usual_link_seconds(size_bytes) for size_bytes in sizes)
    return Span(least.least, most.most)


def narrowed(link: Link, best: Span, now: Span, seconds: float) -> Cause:
    more = Span(0.0 if link.idle else now.least - best.least, now.most - best.most)
    detail = "what these copies take longer than over the best that card and slot can do"
    return Cause(link.words, more.over(seconds), detail, link.commands)


def debug(model: ModelSpeed, facts: Facts) -> list[Cause]:
    if not debugging(facts):
        return []
    remedy, deep = anew_without(DEBUG, facts), deep_of(facts)
    if deep is None:
        return [Cause("debug logging", None, "llmctl doctor --deep measures it", remedy)]
    if deep.server_share is None or deep.asked != model.name:
        return [Cause("debug logging", None, "the server's processor time was not measured", remedy)]
    detail = "all that the server itself computed while the probe ran"
    return [Cause("debug logging", Span(0.0, deep.server_share), detail, remedy)]


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
    """A Go bool that is true, or a number above 0; one below makes the log shorter (ollama v0.34.0
    envconfig/config.go:201)."""
    text = as_read(value)
    return text in GO_TRUE or LEVEL.fullmatch(text) is not None
