"""Where the server is: OLLAMA_HOST in all its forms, and which setting wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.serving import as_read
from llmctl.errors import UsageError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
SCHEME_PORTS = {"http": 80, "https": 443}
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class Address:
    """A host and a port to connect to, and the words for where they came from."""

    host: str
    port: int
    origin: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def local(self) -> bool:
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


def parse_host(value: str, variable: str) -> Address:
    """OLLAMA_HOST, or another variable of its form, as an address to connect to.

    Read as ollama v0.34.0 reads it (envconfig/config.go:22-66).

    Blanks and quotes are trimmed; `http://h` means port 80 and `https://h` 443; `:8080` and `0.0.0.0` mean
    all interfaces, which is the loopback for one who connects; a bare number is a host name; a port that is
    no port is the default one. Raises UsageError for what cannot name a host.
    """
    scheme, host, port_text = parts(value)
    if scheme == "https":
        raise UsageError(f"{variable} says https, and ollama's own server speaks plain http", f"unset {variable}")
    if any(character.isspace() for character in host):
        raise UsageError(f"{variable} is not an address: {value}", f"unset {variable}")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() and int(port_text) <= 65535 else None
    default = SCHEME_PORTS.get(scheme, DEFAULT_PORT)
    return Address(UNSPECIFIED.get(host, host), default if port is None else port, variable)


def with_port(value: str) -> str:
    """An OLLAMA_HOST that says no port with the one that Ollama has unless it is told otherwise. What it listens at
    stays: one of all interfaces is no loopback here."""
    return Address(parts(value)[1] or DEFAULT_HOST, DEFAULT_PORT, "").url


def parts(value: str) -> tuple[str, str, str]:
    """Its scheme, host and port as they are written, without the path; empty where nothing is."""
    text = as_read(value).strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    return (scheme, *split_host(rest.partition("/")[0]))


def split_host(text: str) -> tuple[str, str]:
    """`host`, `host:port`, `[v6]:port` or a bare v6 address, as (host, port text)."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.lstrip(":")
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def choose_address(environ: Mapping[str, str], profile: tuple[str, int] | None) -> Address:
    """LLMCTL_HOST, else the profile's address when it gives one, else OLLAMA_HOST, else ollama's default."""
    if llmctl_host := environ.get("LLMCTL_HOST"):
        return parse_host(llmctl_host, "LLMCTL_HOST")
    if profile is not None:
        return Address(*profile, origin="profile")
    if ollama_host := environ.get("OLLAMA_HOST"):
        return parse_host(ollama_host, "OLLAMA_HOST")
    return Address(DEFAULT_HOST, DEFAULT_PORT, "default")
