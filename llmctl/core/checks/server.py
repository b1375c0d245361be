"""Checks of the server: whether it is there, answers, and is the only one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from llmctl.core.address import parse_host
from llmctl.core.checks import server_processes, server_settings
from llmctl.core.checks.causes import NO_ANSWER, NO_SERVER, UNITS_IDLE
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.server import ServerFacts, ServerProcess
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.wanted import ended_by, is_mine, restarted, rights
from llmctl.core.checks.words import names
from llmctl.core.guard.facts import Limits
from llmctl.errors import UsageError

ADDRESSES = ("LLMCTL_HOST", "OLLAMA_HOST")


def address_invalid(facts: Facts) -> Judgement:
    """Where the profile or a unit says the address nobody reads the variable, and the server's facts are there."""
    try:
        return None if facts.server.url else Unknown("no address")
    except NotGathered as why:
        for name in ADDRESSES:
            value = facts.shell.environ.get(name, "")
            try:
                parse_host(value, name)
            except UsageError as error:
                remedy = Remedy("say host and port, or take it out of the shell's environment", (f"unset {name}",))
                return Finding(error.message, "an address such as 127.0.0.1:11434", remedy, subject=name)
        return Unknown(str(why))


def host_without_port(facts: Facts) -> Judgement:
    server = facts.server
    if server.answers:
        return None
    variable = server.origin if server.origin in ADDRESSES else ""
    value = facts.shell.environ.get(variable, "")
    if means_port_80(value):
        remedy = Remedy("write the port too", (f"export {variable}={value.strip().rstrip('/')}:11434",))
        return Finding(
            f"{variable} is {value}, which means port 80, and no Ollama answers there",
            f"{value.strip().rstrip('/')}:11434, where Ollama listens unless it is told otherwise",
            remedy,
            (server.words,) if server.words else (),
            variable,
        )
    return [
        wrong_bind(found, facts) for found in in_the_way(facts) if means_port_80(found.environ.get("OLLAMA_HOST", ""))
    ]


def wrong_bind(found: ServerProcess, facts: Facts) -> Finding:
    value = found.environ["OLLAMA_HOST"]
    return Finding(
        f"OLLAMA_HOST of pid {found.pid} is {value}: it listens on port 80",
        f"{value.strip().rstrip('/')}:11434",
        Remedy(
            "end it, and start it with the port",
            (ended_by(found, facts), f"OLLAMA_HOST={value.rstrip('/')}:11434 ollama serve"),
        ),
        subject=f"pid {found.pid}",
    )


def means_port_80(value: str) -> bool:
    """Whether a scheme is given and no port: http:// is port 80 then (ollama v0.34.0 envconfig/config.go:22-60)."""
    text = value.strip().strip("\"'").lower()
    return text.startswith("http://") and ":" not in text.removeprefix("http://").partition("/")[0].rpartition("]")[2]


def port_taken(facts: Facts) -> Judgement:
    server = facts.server
    if server.answer != "stranger":
        return None
    if not parse_host(server.url, "the address").local:
        return not_ollama(server)
    holder = server.listener
    sudo = "sudo " if holder is not None and holder.user not in {None, facts.shell.user} else ""
    look = f"{sudo}ss -ltnp sport = :{parse_host(server.url, 'the address').port}"
    end = (f"{sudo}kill {holder.pid}",) if holder is not None and holder.pid else ()
    return Finding(
        f"{holder.words if holder else 'another program'} has the port of {server.url}",
        "Ollama there",
        Remedy(
            "end that program if it is not wanted, or set server.port in the profile to a free port; then bring it up",
            (look, *end, server.up),
        ),
        (server.words,) if server.words else (),
    )


def not_ollama(server: ServerFacts) -> Finding:
    """Of another machine nothing is known but what it answers; one with a proxy in front may ask for a key."""
    return Finding(
        f"what answers at {server.url} is not Ollama, or does not let llmctl in",
        "Ollama there, which asks for no key",
        Remedy(
            "look at what it says; name the address of Ollama itself in server.host and server.port of the profile",
            (f"curl -i {server.url}/api/version", server.up),
        ),
        (server.words,),
        server.url,
    )


def hangs(facts: Facts) -> Judgement:
    server = facts.server
    if server.answer != "silent":
        return None
    process = server.process
    uptime = process.uptime_seconds if process else None
    if process is not None and not process.stopped and uptime is not None and uptime < Limits().start_seconds:
        return Unknown(f"the server has been starting for {uptime:.0f} s: it looks for GPUs before it answers")
    stopped = process is not None and process.stopped
    if process is None:
        host = shlex.quote(parse_host(server.url, "the address").host)
        remedy = Remedy(
            "see whether this machine finds that one, and what it answers",
            (f"getent hosts {host}", f"curl -i --max-time 5 {server.url}/api/version"),
        )
    else:
        go_on = (f"{rights(process.user, facts)}kill -CONT {process.pid}",) if stopped else ()
        text = "let it go on, or start it anew" if stopped else "start it anew; its log tells what it did last"
        remedy = Remedy(text, (*go_on, "llmctl logs -n 50", *restarted(facts)))
    return Finding(server.words, f"an answer of {server.url}/api/version", remedy, subject=server.url)


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


def not_running(facts: Facts) -> Judgement:
    server = facts.server
    if server.answer != "absent":
        return None
    missed = server.expected and not server.ended
    why = "" if missed else "; llmctl down ended it" if server.ended else "; `llmctl up` was not run yet"
    return Finding(
        server.words + why,
        f"Ollama at {server.url}",
        Remedy("bring it up", (server.up,), safe=missed and server.up.startswith("llmctl ")),
        (*left_over(server), *last_words(facts)),
        severity=None if missed else "warning",
    )


def left_over(server: ServerFacts) -> Sequence[str]:
    return [server_processes.orphan_words(runner) for runner in server.orphans if runner.mine]


def last_words(facts: Facts) -> Sequence[str]:
    """Of the server's log, where it ended in an error."""
    try:
        said = facts.log.port_in_use or facts.log.out_of_memory
    except NotGathered:
        return ()
    return (said.text,) if said else ()


def held(facts: Facts) -> Judgement:
    server = facts.server
    if server.held is None:
        return None
    leased = "has the GPU" in server.held
    sudo = "sudo " if server.up.startswith("sudo ") else ""
    if leased:
        remedy = Remedy("the model comes back when that command ends", ("llmctl status",))
    else:
        remedy = Remedy("let the guard work again", (f"{sudo}llmctl guard --resume",))
    return Finding(f"the guard keeps its hands off: {server.held}", "a guard that keeps the model resident", remedy)


CHECKS = (
    Check(
        "server.address-invalid",
        "The server's address cannot be used",
        "error",
        "LLMCTL_HOST and OLLAMA_HOST are read as Ollama reads them (ollama v0.34.0 envconfig/config.go:22-66). One "
        "that names https, or no host, leads nowhere: Ollama's server speaks plain http.",
        address_invalid,
        after=("profile.invalid",),
    ),
    Check(
        "server.host-without-port",
        "OLLAMA_HOST means port 80",
        "error",
        "With `http://` before the host and no port behind it Ollama takes port 80, not 11434 (ollama v0.34.0 "
        "envconfig/config.go:22-60). Its clients then ask a port where nothing listens, and its server listens where "
        "nobody asks.",
        host_without_port,
        after=("profile.invalid", "server.address-invalid"),
    ),
    Check(
        "server.port-taken",
        "Another program has the server's port",
        "error",
        "Who listens on the port is read of /proc/net/tcp, and what it answers at /api/version. While another "
        "program has it the server cannot start; under a unit it is started again and again (ollama issues 707, "
        "2194, 14963).",
        port_taken,
        after=("profile.invalid", "server.host-without-port"),
    ),
    Check(
        "server.hangs",
        "The server does not answer",
        "error",
        "Its process is there, or its port is open, and /api/version is not answered within 3 s. A server that started "
        "less than 90 s ago may still look for GPUs (ollama v0.34.0 discover/runner.go), which is no finding.",
        hangs,
        after=("profile.invalid", "server.port-taken"),
    ),
    Check(
        "server.two-servers",
        "Another Ollama runs in its place",
        "error",
        "With two servers there are two lists of models: models seem to be gone, and clients ask the wrong one "
        "(ollama issue 5591). Not counted are servers in containers, and those of the same user that were given a "
        "HOME of their own, as llmctl's private profiles are.",
        two_servers,
        after=NO_ANSWER,
    ),
    Check(
        "server.not-running",
        "The server is not running",
        "error",
        "Nothing listens at the profile's address. It is an error where the last `llmctl up` left a server there, "
        "the service is installed, or the models are pinned; a warning where `llmctl down` ended it, or nobody "
        "brought it up yet.",
        not_running,
        after=(*NO_ANSWER, "server.two-servers", *UNITS_IDLE),
    ),
    *server_processes.CHECKS,
    Check(
        "server.second",
        "A second Ollama runs",
        "warning",
        "Two servers share one GPU and load into the same memory, and each has models of its own. On one store each "
        "removes at its start what it takes for unused (ollama v0.34.0 server/images.go:874-929). One with another "
        "store and no model loaded is told for information. Which servers are counted is said at server.two-servers.",
        second_server,
        after=NO_SERVER,
    ),
    *server_settings.CHECKS,
    Check(
        "server.held",
        "The guard keeps its hands off",
        "info",
        "`llmctl guard --hold` and `llmctl yield` pause the guard. Until that ends nothing brings the model back, "
        "which is what was asked for, and worth knowing when it was forgotten.",
        held,
        after=("profile.invalid",),
    ),
)
