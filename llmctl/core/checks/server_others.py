"""Checks of the servers of this machine that are not the profile's."""

from __future__ import annotations

from llmctl.core.address import parse_host
from llmctl.core.checks.causes import NO_ANSWER, NO_SERVER
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.server import ServerFacts, ServerProcess
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy
from llmctl.core.checks.wanted import ended_by, is_mine
from llmctl.core.checks.words import names


def two_servers(facts: Facts) -> Judgement:
    """The profile's own is not there, and another one is."""
    server = facts.server
    others = in_the_way(facts)
    if not others or server.answer != "absent":
        return None
    return Finding(
        f"no server at {server.url}, and another Ollama runs: {words_of(others[0])}",
        f"the profile's server at {server.url}: another one has models and settings of its own",
        Remedy(
            "bring up the profile's server; end the other one if it is not wanted",
            (server.up, ended_by(others[0], facts)),
        ),
        tuple(words_of(found) for found in others),
    )


def second_server(facts: Facts) -> Judgement:
    server = facts.server
    others = in_the_way(facts)
    if not others or not server.answers:
        return None
    whose = "" if all(is_mine(found, facts) for found in others) else "; ask its user, where it is another's"
    same = any(found.store is not None and found.store == server.store for found in others)
    loaded = {runner.parent for runner in server.runners} & {found.pid for found in others}
    why = "each removes at its start what it takes for unused" if same else "what one pulls, the other does not have"
    return Finding(
        f"{len(others)} more `ollama serve` beside it: {names([words_of(found) for found in others])}",
        f"one server on this machine: of two, {why}, and both load into the same memory",
        Remedy(f"end the one that is not wanted{whose}", tuple(ended_by(found, facts) for found in others)),
        severity=None if same or loaded else "info",
    )


def in_the_way(facts: Facts) -> list[ServerProcess]:
    """Other servers of this machine, if the profile's is on it. A private one is made to be beside them."""
    server, profile = facts.server, facts.profile.profile
    if profile is not None and profile.private:
        return []
    local = parse_host(server.url, "the address").local and not server.forwarded
    return [found for found in server.processes if local and not is_it(server, found) and beside(server, found)]


def is_it(server: ServerFacts, found: ServerProcess) -> bool:
    """Whether it is the profile's server, or may be: of another user's it is not seen which of them listens."""
    if server.pid is not None or server.listener is None:
        return found.pid == server.pid
    return found.user == server.listener.user


def beside(server: ServerFacts, found: ServerProcess) -> bool:
    """Whether it is in this one's way: private servers, and those of containers, are meant to be apart."""
    same_store = found.store is not None and found.store == server.store
    return found.here and (same_store or not found.apart)


def words_of(found: ServerProcess) -> str:
    port = f" on port {found.port}" if found.port else ""
    store = f", models in {found.store}" if found.store else ""
    return f"pid {found.pid} of {found.user}{port}{store}"


INSTEAD = Check(
    "server.two-servers",
    "Another Ollama runs in its place",
    "error",
    "With two servers there are two lists of models: models seem to be gone, and clients ask the wrong one "
    "(ollama issue 5591). Not counted are servers in containers, and those of the same user that were given a "
    "HOME of their own, as llmctl's private profiles are.",
    two_servers,
    after=NO_ANSWER,
)
SECOND = Check(
    "server.second",
    "A second Ollama runs",
    "warning",
    "Two servers share one GPU and load into the same memory, and each has models of its own. On one store each "
    "removes at its start what it takes for unused (ollama v0.34.0 server/images.go:874-929). One with another "
    "store and no model loaded is told for information. Which servers are counted is said at server.two-servers.",
    second_server,
    after=NO_SERVER,
)
