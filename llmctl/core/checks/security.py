"""Checks of who may reach the server, and of what it gives away."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping

from llmctl.core import unit
from llmctl.core.address import parse_host
from llmctl.core.checks import cves
from llmctl.core.checks.causes import NO_SERVER, NO_STORE, NOTHING_TO_RUN
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.server_settings import environment, set_anew
from llmctl.core.checks.wanted import anew_with, by_unit
from llmctl.core.checks.words import names
from llmctl.core.proxy import has_password
from llmctl.core.serving import Lack, go_bool

UNSEEN = "another user's server does not tell its environment"


def variables(facts: Facts) -> Mapping[str, str] | None:
    """The server's environment, or that of its unit; None where neither can be seen."""
    own = environment(facts)
    if own or not facts.server.answers:
        return own
    try:
        service = facts.service
    except NotGathered:
        return None
    served = service.units.get(unit.ENGINE) if facts.server.owner == "systemd" else None
    process = facts.server.process
    if served is None and process is not None and process.unit == unit.FOREIGN:
        served = service.ollama
    return served.environment if served is not None and served.environment else None


def loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def bound_wide(facts: Facts) -> Judgement:
    addresses = facts.security.addresses
    if addresses is None:
        return Unknown("its sockets cannot be seen from here")
    wide = [address for address in addresses if not loopback(address)]
    if not wide:
        return None
    port = parse_host(facts.server.url, "the server's address").port
    if facts.server.forwarded or is_published(facts):
        return published(facts, port, wide)
    profile = facts.profile.profile
    asked = (
        profile is not None and profile.server.address_given and profile.server.host not in {"127.0.0.1", "localhost"}
    )
    mine = facts.server.owner in {"llmctl", "systemd"}
    where = f"set server.host to 127.0.0.1 in {profile.path}; " if asked and mine and profile else ""
    return Finding(
        f"port {port} is open at {names(wide)}: whoever reaches it may use, add and delete models",
        "127.0.0.1, with a gateway that asks for a key in front of it",
        Remedy(f"{where}start it on the loopback only", anew_with(facts, {"OLLAMA_HOST": f"127.0.0.1:{port}"})),
        (f"/proc/net/tcp: {', '.join(addresses)}", *([f"OLLAMA_HOST={host}"] if (host := told(facts)) else [])),
        facts.server.url,
    )


def is_published(facts: Facts) -> bool:
    """Whether it is a container's own server. One of a unit of systemd, or started by hand, is as on a machine."""
    process = facts.server.process
    if not facts.shell.container or by_unit(process, facts):
        return False
    return process is None or process.parent <= 1


def published(facts: Facts, port: int, wide: list[str]) -> Finding:
    """A container's server must listen at every address; who reaches it is decided where its port is published."""
    server = facts.server
    inside = facts.shell.container
    where = f"port {port} is open at {names(wide)}"
    look = f"docker ps --filter publish={port}" if inside else f"ss -ltnp sport = :{port}"
    return Finding(
        f"{where} of this container ({inside}): whoever reaches the port that is published for it may use, add and "
        "delete models"
        if inside
        else f"{where}, and handed on: whoever reaches it may use, add and delete models",
        "a port that is published on the loopback only, with a gateway that asks for a key in front of it",
        Remedy(f"publish it on the host's loopback, as docker's -p 127.0.0.1:{port}:{port} does", (look,)),
        subject=server.url,
        severity="warning" if inside else None,
    )


def told(facts: Facts) -> str:
    return (variables(facts) or {}).get("OLLAMA_HOST", "")


def origins(facts: Facts) -> Judgement:
    own = variables(facts)
    if own is None:
        return Unknown(UNSEEN)
    value = own.get("OLLAMA_ORIGINS", "")
    wide = [each.strip() for each in value.split(",") if every_page(each.strip())]
    if not wide:
        return None
    return Finding(
        f"OLLAMA_ORIGINS has {names(wide)}: every page that somebody here opens in a browser may use this server",
        "the origins of the pages that need it, each by name",
        Remedy("name those pages, or leave the variable out", anew_with(facts, {"OLLAMA_ORIGINS": ""})),
        subject="OLLAMA_ORIGINS",
    )


def every_page(origin: str) -> bool:
    """Whether a browser's pages of every site are meant; an extension's or a program's own scheme has none."""
    scheme, _, host = origin.rpartition("://")
    return scheme in {"", "http", "https"} and host in {"*", "*:*"}


def cloud(facts: Facts) -> Judgement:
    if not facts.server.answers:
        return None
    disabled = facts.security.cloud_disabled
    if disabled is None:
        own = variables(facts)
        if own is None:
            return Unknown("the server does not say, and its environment cannot be seen")
        disabled = go_bool(own.get("OLLAMA_NO_CLOUD", ""))
    if disabled:
        return None
    return Finding(
        "a name that ends in `cloud` sends the prompt to ollama.com, under the key of whoever runs the server, for "
        "everybody who reaches it; and the server asks there by itself at its start",
        "OLLAMA_NO_CLOUD=1",
        Remedy("switch it off and start the server anew", set_anew(facts, [Lack("OLLAMA_NO_CLOUD", "1", None)])),
        (f"{facts.server.url}/api/status",),
        facts.server.url,
    )


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
        yield Finding(
            f"{names(hold)} of the server has a password, which Ollama prints into its log and hands to its runners",
            "proxies without a password; llmctl's service keeps one as a credential and stands before the proxy itself",
            Remedy(
                "have the service hold it, or start the server without it",
                (
                    f"{facts.server.root} install-service{facts.server.which}",
                    *anew_with(facts, dict.fromkeys(hold, "")),
                ),
            ),
            (f"pid {facts.server.pid}",),
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
                Remedy(
                    "take it out of the unit and its drop-ins; with the variable set, install-service keeps it as a "
                    "credential",
                    (f"{service.systemctl} edit {known.name}", service.reinstall),
                ),
                (known.file, *known.drop_ins),
                known.name,
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
            "take that right away; --deep hashes what is there",
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


def cve(facts: Facts) -> Judgement:
    version = facts.server.version or facts.engine.version
    if version is None:
        return Unknown("the engine's version is not known")
    known = cves.of(version)
    if known is None:
        return Unknown(f"{version} is no version to compare")
    if not known:
        return None
    wide = any(not loopback(address) for address in exposed(facts))
    newest = max(
        (each.fixed for each in known if each.fixed), key=lambda text: cves.key(text) or (0, 0, 0), default=None
    )
    bad = any(each.reach == "network" for each in known)
    old = any(each.fixed == "0.1.47" for each in known)
    return Finding(
        f"Ollama {version} has {len(known)} known faults, among them {names([each.id for each in known][::-1])}",
        f"Ollama {newest or 'newer than those'}, or newer",
        upgrade(facts),
        tuple(
            f"{each.id}: {each.what} ({'mended in ' + each.fixed if each.fixed else 'seen up to ' + str(each.last)}; "
            f"{each.source}, read {each.read})"
            for each in known[::-1][:4]
        ),
        f"Ollama {version}",
        "error" if bad and (wide or old) else "warning",
    )


def upgrade(facts: Facts) -> Remedy:
    if facts.server.answers and facts.server.owner == "foreign":
        return Remedy(
            "upgrade it the way that it was installed, or have an engine of llmctl's own in its place",
            ("ollama --version", "llmctl engine install"),
        )
    llmctl = "sudo llmctl" if facts.server.up.startswith("sudo") else "llmctl"
    return Remedy(
        "upgrade the engine; what is running is proved again afterwards, and it can be rolled back",
        (f"{llmctl} engine upgrade",),
    )


def exposed(facts: Facts) -> tuple[str, ...]:
    try:
        return facts.security.addresses or ()
    except NotGathered:
        return ()


CHECKS = (
    Check(
        "security.bound-wide",
        "The server is open beyond this machine",
        "error",
        "The addresses at which the server's port is listened on, from /proc/net/tcp. Ollama's API asks for no "
        "password (CVE-2025-63389, by design) and lets everybody pull, delete and create; bound to another address "
        "than the loopback it checks the Host header no more either (ollama v0.33.0 server/routes.go:1776-1839).",
        bound_wide,
        after=NO_SERVER,
    ),
    Check(
        "security.origins",
        "Pages of any site may use the server",
        "error",
        "OLLAMA_ORIGINS with `*` lets every web page that a browser of this machine opens send requests (ollama "
        "v0.33.0 envconfig/config.go:86-109).",
        origins,
        after=NO_SERVER,
    ),
    Check(
        "security.cloud",
        "Prompts can leave for the cloud",
        "warning",
        "What the server says at /api/status. With the cloud on, names that end in `cloud` run at ollama.com (ollama "
        "v0.33.0 internal/modelref), and the server asks there for model data at its start.",
        cloud,
        after=NO_SERVER,
    ),
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
        "security.cve",
        "The engine has known faults",
        "warning",
        "The running version beside llmctl/core/checks/cves.py, where every row has its source and the date on which "
        "that was read. An error where one of them can be reached over the network and the server is open beyond this "
        "machine, and for anything before 0.1.47.",
        cve,
        after=("engine.none",),
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
