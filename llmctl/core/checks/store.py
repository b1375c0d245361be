"""Checks of what is in the store: the pinned models whole and as they are pinned, and what else is there."""

from __future__ import annotations

from collections.abc import Callable

from llmctl.core.checks import store_disk
from llmctl.core.checks.causes import NO_STORE
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.store import StoreFacts, Trouble
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.store_disk import Judge, quoted
from llmctl.core.checks.words import GIB, names, size

LEFT_BYTES = GIB


def seen(judge: Judge) -> Callable[[Facts], Judgement]:
    """Only where this user sees what is in the store; a folder that nobody has made yet holds nothing."""

    def look(facts: Facts) -> Judgement:
        store = facts.store
        if store.path is None or not store.readable:
            return Unknown(store.problem or "the store cannot be read")
        return judge(store)

    return look


def mended(store: StoreFacts, one: Trouble, expected: str, words: str) -> Finding:
    return Finding(
        one.words,
        expected,
        Remedy(words, (f"{store.llmctl} {one.mend} {quoted(one.name)}",))
        if one.mend != "up"
        else Remedy(
            "bring it up: the name is made anew of the pinned weights",
            (f"{store.llmctl} up",),
            safe=store.llmctl == "llmctl",
        ),
        (one.path,) if one.path else (),
        one.name,
        None if one.wanted else "warning",
    )


def missing(store: StoreFacts) -> Judgement:
    expected = "every blob that the lock names, whole, and the name that the model is served by"
    words = "get what is missing; only that is fetched, and it is hashed before it counts"
    return [mended(store, one, expected, words) for one in store.missing]


def corrupt(store: StoreFacts) -> Judgement:
    expected = "a manifest: JSON with a list of layers"
    words = "put the right one in its place; blobs that hash are kept"
    return [mended(store, one, expected, words) for one in store.corrupt]


def drift(store: StoreFacts) -> Judgement:
    expected = "the weights that the lock pins, byte for byte"
    words = "put back what is pinned; new weights are accepted only by `llmctl pull --update`"
    return [mended(store, one, expected, words) for one in store.drifted]


def damaged(facts: Facts) -> Judgement:
    llmctl = facts.store.llmctl
    return [
        Finding(
            words,
            "bytes that hash to the blob's name",
            Remedy("fetch that blob anew; the old one stays until the new one hashes", (f"{llmctl} repair",)),
            subject=name,
        )
        for name, words in facts.hashed.bad_blobs
    ]


def two_stores(store: StoreFacts) -> Judgement:
    found = []
    for other in store.others:
        if not other.lacking:
            continue
        gone = bool(other.wanted) or not store.models
        found.append(
            Finding(
                f"{other.path} has {len(other.lacking)} that this one lacks: "
                f"{names(other.wanted or other.lacking)}; this one has {store.models} models in all",
                "one store, or models that nobody looks for in the other",
                Remedy(
                    "see what lies there; a server uses it where OLLAMA_MODELS names it, and a model goes from one "
                    "to the other by export and import",
                    (f"llmctl list --store {quoted(other.path)}", f"export OLLAMA_MODELS={quoted(other.path)}"),
                ),
                subject=store.path or "",
                severity="warning" if gone else "info",
            )
        )
    return found


def leftovers(store: StoreFacts) -> Judgement:
    held = store.partial_bytes + store.leftover_bytes
    if held < LEFT_BYTES:
        return None
    return Finding(
        f"{size(store.partial_bytes)} in {store.partials} files of downloads that broke off, "
        f"{size(store.leftover_bytes)} in {store.leftovers} blobs that no model names",
        f"less than {size(LEFT_BYTES)} of them",
        Remedy("see what would go, then let it go", (f"{store.llmctl} prune --dry-run", f"{store.llmctl} prune")),
        subject=store.path or "",
    )


CHECKS = (
    *store_disk.CHECKS,
    Check(
        "store.corrupt-manifest",
        "A manifest is damaged",
        "error",
        "Ollama does not list a model whose manifest it cannot parse, and does not prune the store any more either "
        "(ollama v0.33.0 server/images.go:874-929). For a model that is not pinned it is a warning.",
        seen(corrupt),
        after=NO_STORE,
    ),
    Check(
        "store.missing",
        "A pinned model is not whole",
        "error",
        "Every blob that the lock names must be there in its full length, and the alias that the model is served by. "
        "Ollama goes on listing a model whose weights are gone, and fails at the next load (ollama v0.33.0 "
        "server/model_list_cache.go:145-230).",
        seen(missing),
        after=NO_STORE,
    ),
    Check(
        "store.drift",
        "A name has other weights than those that are pinned",
        "error",
        "The alias that clients of llmctl get must have the manifest of the lock, or for a model that was made on "
        "another machine its weights. The plain name may be moved by anybody's `ollama pull` (ollama v0.33.0 "
        "server/images.go:1115); then clients that ask for it get other answers, which is a warning.",
        seen(drift),
        after=NO_STORE,
    ),
    Check(
        "store.damaged",
        "A pinned blob does not hash to its name",
        "error",
        "With --deep every blob that a pin reaches is hashed. Ollama itself takes a blob that is there for right and "
        "never hashes it again (ollama v0.33.0 server/images.go:1049-1090).",
        damaged,
        after=("store.missing",),
        deep=True,
    ),
    Check(
        "store.two-stores",
        "Another store has models that this one lacks",
        "warning",
        "The service's store and a user's own are the usual reason why models seem to be gone: a server started by "
        "hand reads ~/.ollama/models, the packaged unit /usr/share/ollama/.ollama/models (ollama/ollama issue 5591). "
        "For information where nothing of the profile is in the other one.",
        seen(two_stores),
        after=NO_STORE,
    ),
    Check(
        "store.leftovers",
        "Much of the store is left over",
        "info",
        "Downloads that broke off and blobs that no manifest names, as `llmctl prune` counts them: nothing younger "
        "than an hour, and sparse files by their blocks. Told from 1 GiB on.",
        seen(leftovers),
        after=(*NO_STORE, "store.corrupt-manifest"),
    ),
)
