"""A real HTTP proxy on loopback that wants a password; every name leads to this machine."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """`forwarded` are the first lines of the requests that had the password, `refused` of those that had not."""

    user: str
    password: str
    port: int = 0
    forwarded: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def authorization(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@contextmanager
def serving(user: str, password: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy on a free port. With `tls` it is spoken to over TLS."""
    proxy = Proxy(user, password)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy.port = listening.getsockname()[1]
        threading.Thread(target=_accept, args=(proxy, listening, tls), daemon=True).start()
        try:
            yield proxy
        finally:
            # Closing alone would not wake the thread that accepts.
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def _accept(proxy: Proxy, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=(proxy, client, tls), daemon=True).start()


def _serve(proxy: Proxy, client: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), tls.wrap_socket(client, server_side=True) if tls else client as client:
        head, rest = _head(client)
        first, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        if headers.get("proxy-authorization") != proxy.authorization:
            proxy.refused.append(first)
            challenge = 'Proxy-Authenticate: Basic realm="proxy"\r\nContent-Length: 0\r\nConnection: close'
            client.sendall(f"HTTP/1.1 407 Proxy Authentication Required\r\n{challenge}\r\n\r\n".encode())
            return
        proxy.forwarded.append(first)
        method, target, version = first.split(" ")
        tunnel = method == "CONNECT"
        split = urlsplit(f"//{target}" if tunnel else target)
        if tunnel:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", split.port or 80)) as server:
            if not tunnel:
                path = f"{split.path}?{split.query}" if split.query else split.path
                kept = [line for line in fields if not line.lower().startswith("proxy-")]
                server.sendall("\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode())
            server.sendall(rest)
            other = threading.Thread(target=_relay, args=(client, server), daemon=True)
            other.start()
            _relay(server, client)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(1 << 16)
        if not piece:
            raise ConnectionResetError
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
