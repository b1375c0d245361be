"""Checks of what lies open on this machine: prompts, passwords, and a store that others may write to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llmctl.core import unit
from llmctl.core.checks.causes import NO_SERVER, NO_STORE, NOTHING_TO_RUN
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.service import ServiceFacts, UnitFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.security_open import UNSEEN, variables
from llmctl.core.checks.server_settings import environment
from llmctl.core.checks.wanted import anew_with, by_unit
from llmctl.core.checks.words import names
from llmctl.core.proxy import has_password
from llmctl.core.serving import go_bool


def bodies_logged(facts: Facts) -> Judgement:
    own = variables(facts)
    if own is None:
        return Unknown(UNSEEN)
    name = "OLLAMA_DEBUG_LOG_REQUESTS"
    if not go_bool(own.get(name, "")):
        return None
    return Finding(
        f"{name}={own[name]}: every prompt is written into /tmp/ollama-request-logs-*",
        "not set",
        Remedy(
            "take it out, start the server anew, and delete what was written",
            (*anew_with(facts, {name: "0"}), "ls -d /tmp/ollama-request-logs-*"),
        ),
        subject=name,
    )


def proxy_password(facts: Facts) -> Judgement:
    # What a unit says its server has too.
    return list(in_units(facts)) or list(in_process(facts))


def in_process(facts: Facts) -> Iterator[Finding]:
    """Of llmctl's own units the credentials hold it, and the server is handed a forwarder's address."""
    hold = sorted(name for name, value in environment(facts).items() if has_password(name, value))
    if hold:
        server, without = facts.server, anew_with(facts, dict.fromkeys(hold, ""))
        if server.owner == "foreign" and by_unit(server.process, facts):
            remedy = Remedy("take it out of what its unit reads", without)
        else:
            install = f"{server.root} install-service{server.which}"
            remedy = Remedy("have the service hold it, or start the server without it", (install, *without))
        yield Finding(
            f"{names(hold)} of the server has a password, which Ollama prints into its log and hands to its runners",
            "proxies without a password; llmctl's service keeps one as a credential and stands before the proxy itself",
            remedy,
            (f"pid {server.pid}",),
            hold[0],
        )


def in_units(facts: Facts) -> Iterator[Finding]:
    service = facts.service
    for known in (*service.units.values(), *([service.ollama] if service.ollama else [])):
        if known.passwords:
            yield Finding(
                f"{names(known.passwords)} stands in the unit with a password; every user may read it: "
                f"systemctl show {known.name}",
                "no secret in a unit",
                without_password(service, known),
                (known.file, *known.drop_ins),
                known.name,
            )


def without_password(service: ServiceFacts, known: UnitFacts) -> Remedy:
    """Ollama's own unit is the machine's, whosever llmctl's are, and install-service keeps no credential for it."""
    if known.name == unit.FOREIGN:
        return Remedy(
            "take it out of the unit and its drop-ins",
            (f"sudo systemctl edit {known.name}", f"sudo systemctl restart {known.name}"),
        )
    return Remedy(
        "take it out of the unit and its drop-ins; with the variable set, install-service keeps it as a credential",
        (f"{service.systemctl} edit {known.name}", service.reinstall),
    )


def store_writable(facts: Facts) -> Judgement:
    store = facts.store
    if store.path is None or not store.readable:
        return Unknown(store.problem or "the store cannot be read")
    if not store.writable_by_others:
        return None
    return Finding(
        f"every user of this machine may write to {len(store.writable_by_others)} folders and files of the store: "
        "other weights in place of yours",
        "writable for the server's user alone",
        Remedy(
            "take that right away, then hash what is there",
            (f"sudo chmod -R o-w {shlex.quote(store.path)}", f"{store.llmctl} verify"),
        ),
        store.writable_by_others[:4],
        store.path,
    )


def state_readable(facts: Facts) -> Judgement:
    found = facts.security.readable
    if not found:
        return None
    paths = [each.path for each in found]
    return Finding(
        f"every user of this machine may read {names(paths)}",
        "mode 0600: these hold proxies with their passwords, or the server's log",
        Remedy("take that right away", (f"sudo chmod go-rwx {shlex.join(paths)}",)),
        tuple(f"{each.mode} {each.path}" for each in found[:4]),
        paths[0],
    )


CHECKS = (
    Check(
        "security.bodies-logged",
        "Prompts are written to a file",
        "warning",
        "OLLAMA_DEBUG_LOG_REQUESTS writes the body of every request below /tmp, for anything but 0 and false, as "
        "Ollama takes every other word for yes (ollama v0.33.0 envconfig/config.go:177-190).",
        bodies_logged,
        after=NO_SERVER,
    ),
    Check(
        "security.proxy-password",
        "A proxy's password lies open",
        "warning",
        "HTTP_PROXY and its like, with user and password, in the server's environment or in a unit. Ollama prints its "
        "environment into its log at each start (ollama v0.33.0 server/routes.go:1951), and everybody may read a unit. "
        "The password itself is never shown here.",
        proxy_password,
        after=NOTHING_TO_RUN,
    ),
    Check(
        "security.store-writable",
        "Other users may change the models",
        "warning",
        "Modes of the store's folders and blobs. Whoever may write there can put other weights under a name, and "
        "Ollama never hashes a blob again that is there (ollama v0.33.0 server/images.go:1049-1090).",
        store_writable,
        after=NO_STORE,
    ),
    Check(
        "security.state-readable",
        "Other users may read llmctl's secrets",
        "warning",
        "The credentials folder has proxies with their passwords, and the server's log may show what was asked; llmctl "
        "writes both for their owner alone. Looked at are the modes of the files and of every folder above them.",
        state_readable,
    ),
)
