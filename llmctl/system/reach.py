"""Can an address be reached at all? Asked before a tool with long timeouts of its own is sent there."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from llmctl.errors import DownloadFailed
from llmctl.system.download import CONNECT_SECONDS, within

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def require_reachable(url: str, environ: Mapping[str, str], seconds: float = CONNECT_SECONDS) -> None:
    """DownloadFailed within `seconds` unless the host of `url`, or the proxy in front of it, accepts a connection.

    Only TCP is tried: what the host then says is left to the tool. Addresses without a host (file:) pass.
    """
    first_hop = urlsplit(proxy_for(url, environ) or url)
    if not first_hop.hostname:
        return
    address = (first_hop.hostname, first_hop.port or PORTS.get(first_hop.scheme, 443))

    def connect() -> bool:
        try:
            socket.create_connection(address, timeout=seconds).close()
        except OSError as error:
            raise DownloadFailed(f"cannot connect to {address[0]}: {error.strerror or error} ({url})") from error
        except UnicodeError as error:
            raise DownloadFailed(f"{address[0]} is no name of a host ({url})", code="no_host") from error
        return True

    within(seconds, url, connect)


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the usual variables (https_proxy, all_proxy, no_proxy) name for `url`."""
    parts = urlsplit(url)

    def variable(name: str) -> str:
        return environ.get(name) or environ.get(name.upper()) or ""

    excluded = variable("no_proxy")
    if excluded and urllib.request.proxy_bypass(parts.hostname or "", {"no": excluded}):
        return None
    return variable(f"{parts.scheme}_proxy") or variable("all_proxy") or None
