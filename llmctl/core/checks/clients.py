"""Checks of what clients do to a server that others use too. They are known by what they leave in its log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from llmctl.core.checks.causes import NO_SERVER
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.log import Load, LogFacts, LogLine
from llmctl.core.checks.facts.models import ResidentFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import since, unsaid

STORM = 3
NUMBERS = re.compile(r"\blimit=(\d+) prompt=(\d+)")


def reloads(facts: Facts) -> Judgement:
    if not facts.models.asked:
        return Unknown("the server does not tell what it has loaded")
    found = [
        storm(facts, model, again)
        for model in facts.models.resident
        if len(again := reloaded(facts.log.recent_loads, model)) >= STORM
    ]
    return found or unsaid(facts.log)


def reloaded(loads: Sequence[Load], model: ResidentFacts) -> list[Load]:
    """Every load of its weights that was another context's doing, or another model's in between."""
    places = [place for place, load in enumerate(loads) if load.weights_digest == model.weights_digest]
    return [
        loads[now]
        for before, now in pairwise(places)
        if now > before + 1 or loads[before].per_slot != loads[now].per_slot
    ]


def storm(facts: Facts, model: ResidentFacts, again: list[Load]) -> Finding:
    contexts = sorted({load.per_slot for load in again if load.per_slot is not None})
    others = {load.weights_digest for load in facts.log.recent_loads} - {model.weights_digest}
    asked = f"contexts of {', '.join(map(str, contexts))} tokens" if len(contexts) > 1 else "other models"
    return Finding(
        f"{len(again)} loads within the last hour, as clients asked for {asked}",
        f"one load, with a context of {model.context:,} tokens, and clients that send no num_ctx",
        Remedy(
            "let the clients send no num_ctx and ask for the pinned model; its context is in the profile",
            ("llmctl logs -n 200", facts.server.up),
        ),
        (f"{facts.log.source}: {len(again)} lines `starting llama-server`, {len(others)} other models",),
        model.name,
    )


def keep_alive(facts: Facts) -> Judgement:
    if not facts.models.asked:
        return Unknown("the server does not tell what it has loaded")
    up = facts.server.up
    return [
        Finding(
            f"it is unloaded {ends(model.loaded.stays_seconds)}",
            "a model that stays: the server keeps it for ever until a client says otherwise",
            Remedy(
                "let the client send no keep_alive, or -1; until then load it anew to keep it",
                ("ollama ps", facts.server.down, up) if facts.server.owner != "foreign" else ("ollama ps", up),
            ),
            (f"/api/ps: {model.loaded.name} expires",),
            model.name,
        )
        for model in facts.models.resident
        if model.loaded is not None and model.loaded.stays_seconds is not None
    ]


def ends(stays_seconds: float | None) -> str:
    if stays_seconds is None or stays_seconds <= 0:
        return "as soon as it is idle"
    left = f"{stays_seconds:.0f} s" if stays_seconds < 120 else f"{stays_seconds / 60:.0f} min"
    return f"in {left}, unless a request comes"


def truncated(facts: Facts) -> Judgement:
    found = facts.log.truncated
    if found is None:
        return unsaid(facts.log)
    numbers = NUMBERS.search(found.text)
    last = f"; the last had {int(numbers[2]):,} tokens, of which {int(numbers[1]):,} were read" if numbers else ""
    count = found.lately or found.count
    prompts = "1 prompt was" if count == 1 else f"{count} prompts were"
    return Finding(
        f"{prompts} cut in the middle, and answered with HTTP 200{since(found)}{last}",
        "no prompt longer than the context, or an error that says so",
        Remedy(
            "raise server.context in the profile, or have the client send truncate: false, as `llmctl ask` does, and "
            "get an error in place of a wrong answer",
            ("llmctl fit", facts.server.up),
        ),
        (found.text,),
        severity=None if found.lately else "info",
    )


def keep_alive_string(facts: Facts) -> Judgement:
    return refused(
        facts.log,
        facts.log.keep_alive_string,
        'refused at once with HTTP 400, as a keep_alive of "-1" in quotes is',
        'keep_alive as a number (-1), or as a text with a unit ("-1m")',
        "look at what that client sends; Ollama does not log what was wrong with a request",
    )


def embeddings(facts: Facts) -> Judgement:
    return refused(
        facts.log,
        facts.log.embedding_refused,
        "for embeddings answered with HTTP 501, as the model that was asked generates text",
        "embeddings asked from an embedding model",
        "have the client ask an embedding model, and pull one",
        "llmctl pull nomic-embed-text --quantization F16",
    )


def refused(log: LogFacts, found: LogLine | None, observed: str, expected: str, text: str, *commands: str) -> Judgement:
    if found is None:
        return unsaid(log)
    count = found.lately or found.count
    return Finding(
        f"{count} request{'' if count == 1 else 's'} {observed}{since(found)}",
        expected,
        Remedy(text, commands or ("llmctl logs -n 100",)),
        (found.text,),
        severity=None if found.lately else "info",
    )


CHECKS = (
    Check(
        "clients.reloads",
        "Clients load the model anew, again and again",
        "error",
        "A request whose num_ctx differs from the loaded one makes Ollama load the model anew, and the next request "
        "without it does so again (ollama v0.34.0 server/sched.go:1381-1431); a request for another model does the "
        "same where only one is kept. Every load is a line `starting llama-server` in the log, with context and "
        "slots; three changes within the last hour are a storm.",
        reloads,
        after=NO_SERVER,
    ),
    Check(
        "clients.keep-alive",
        "A client ended the model's stay",
        "warning",
        "A keep_alive in a request replaces the server's, and stays in force for those that send none (ollama v0.34.0 "
        "server/sched.go:483; issue 5272). LangChain and others send 5m. `expires_at` in /api/ps shows it.",
        keep_alive,
        after=(*NO_SERVER, "server.settings", "server.keep-alive"),
    ),
    Check(
        "clients.truncated",
        "Prompts were cut",
        "warning",
        "A prompt longer than the context is cut in its middle, and the answer says nothing of it. Ollama logs "
        "`truncating input prompt` with the numbers (v0.34.0 llm/llama_server.go:317); the text of the prompt is not "
        "in the log. For information where the last was more than an hour ago.",
        truncated,
        after=NO_SERVER,
    ),
    Check(
        "clients.keep-alive-string",
        "Requests are refused at once",
        "info",
        'keep_alive must be a number, or a text that has a unit: "-1" is HTTP 400, `missing unit in duration` '
        "(ollama v0.34.0 api/types.go:1243-1271). The log has only the status; a 400 within a millisecond is a "
        "request that could not be read, which most often is this.",
        keep_alive_string,
        after=NO_SERVER,
    ),
    Check(
        "clients.embeddings",
        "Embeddings asked from a model that has none",
        "warning",
        "/api/embed and /v1/embeddings to a model that generates text are answered with HTTP 501, `This server does "
        "not support embeddings` (ollama v0.34.0, seen). The model is loaded for it all the same, in the place of "
        "another.",
        embeddings,
        after=NO_SERVER,
    ),
)
