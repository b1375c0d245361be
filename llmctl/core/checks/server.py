"""Checks of the server: whether it is there, answers, and is the only one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from llmctl.core.address import parse_host, parts, with_port
from llmctl.core.checks import server_others, server_processes, server_settings
from llmctl.core.checks.causes import NO_ANSWER, UNITS_IDLE
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.server import ServerFacts, ServerProcess
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.server_others import in_the_way
from llmctl.core.checks.wanted import by_unit, edited, is_mine, look_at, restarted, rights
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
        remedy = Remedy("write the port too", (f"export {variable}={shlex.quote(with_port(value))}",))
        return Finding(
            f"{variable} is {value}, which means port 80, and no Ollama answers there",
            f"{with_port(value)}, where Ollama listens unless it is told otherwise",
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
        with_port(value),
        bound_anew(found, facts, with_port(value)),
        subject=f"pid {found.pid}",
    )


def bound_anew(found: ServerProcess, facts: Facts, address: str) -> Remedy:
    if by_unit(found, facts):
        return Remedy("write the port too where its unit says OLLAMA_HOST", edited(found))
    if not is_mine(found, facts):
        return Remedy("have its user start it with the port", (look_at(found),))
    start = f"OLLAMA_HOST={shlex.quote(address)} ollama serve"
    return Remedy("end it, and start it with the port", (f"kill {found.pid}", start))


def means_port_80(value: str) -> bool:
    """Whether a scheme is given and no port: http:// is port 80 then (ollama v0.34.0 envconfig/config.go:22-60)."""
    scheme, _, port = parts(value)
    return scheme == "http" and not port


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
    server_others.INSTEAD,
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
    server_others.SECOND,
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
