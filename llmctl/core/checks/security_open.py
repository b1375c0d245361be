"""Checks of who may reach the server, and where it takes prompts to."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from llmctl.core import unit
from llmctl.core.address import parse_host
from llmctl.core.checks.causes import NO_SERVER
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.server_settings import environment, set_anew
from llmctl.core.checks.wanted import anew_with, by_unit
from llmctl.core.checks.words import names
from llmctl.core.serving import Lack, as_read, go_bool

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
    """Also of an address of version 4 that a socket of version 6 shows as ::ffff:127.0.0.1."""
    found = ipaddress.ip_address(address)
    plain = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (plain or found).is_loopback


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
        Remedy(f"{where}start it on the loopback only", on_loopback(facts, port)),
        (f"/proc/net/tcp: {', '.join(addresses)}", *([f"OLLAMA_HOST={host}"] if (host := told(facts)) else [])),
        facts.server.url,
    )


def on_loopback(facts: Facts, port: int) -> tuple[str, ...]:
    """The unit of llmctl's service has its address of the profile, unless somebody's drop-in says another."""
    lack = Lack("OLLAMA_HOST", f"127.0.0.1:{port}", None)
    if facts.server.owner == "systemd" and not is_overridden(facts, lack.setting):
        return set_anew(facts, [lack])
    return anew_with(facts, {lack.setting: lack.wanted})


def is_overridden(facts: Facts, setting: str) -> bool:
    try:
        return any(lack.setting == setting for lack in facts.service.overridden)
    except NotGathered:
        return False


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
    value = as_read(own.get("OLLAMA_ORIGINS", ""))
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
)
