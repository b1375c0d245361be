"""A proxy on the loopback that knows the password of the real one; this file is the program of its process.

Ollama prints its proxy variables into its log, and hands them to its runners. So it is told of this proxy, whose
address holds no secret, and every request goes on to the real one with the Proxy-Authorization that it wants (RFC 9110,
11.7.2). It serves its own user alone, and ends with the process that started it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

PORTS = {"http": 80, "https": 443}
LIMIT_BYTES = 64 << 10
PATIENCE_SECONDS = 30.0
# prctl(2)
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Upstream:
    """A proxy that wants a password; `authorization` is the header's value, `descriptor` the socket that listens for
    it."""

    host: str
    port: int
    tls: bool
    authorization: str
    descriptor: int = -1


def without_passwords(variables: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with the address of a forwarder in place of every http proxy that has a password; it is started,
    with `environ`, where there is one. It ends with this process, whatever that becomes."""
    handed, sockets = dict(variables), dict[Upstream, socket.socket]()
    for name, value in variables.items():
        if not name.upper().endswith("_PROXY"):
            continue
        try:
            proxy = upstream(value)
        except ValueError:
            say(f"{name} is no proxy's address, and is left out")
            del handed[name]
            continue
        if proxy is not None:
            if proxy not in sockets:
                sockets[proxy] = socket.create_server(("127.0.0.1", 0))
            handed[name] = f"http://127.0.0.1:{sockets[proxy].getsockname()[1]}"
    if sockets:
        start(sockets, environ)
    return handed


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def upstream(url: str) -> Upstream | None:
    """None for what has no password, and for proxies that do not speak HTTP (socks5), which stay as they are.
    ValueError for what is no address."""
    if "@" not in url:
        return None
    split = urlsplit(url if "://" in url else f"http://{url}")
    if split.scheme not in PORTS:
        return None
    if not split.hostname or "@" not in split.netloc:
        # A password with a slash that is not encoded.
        raise ValueError
    basic = base64.b64encode(f"{unquote(split.username or '')}:{unquote(split.password or '')}".encode()).decode()
    return Upstream(split.hostname, split.port or PORTS[split.scheme], split.scheme == "https", f"Basic {basic}")


def start(sockets: Mapping[Upstream, socket.socket], environ: Mapping[str, str]) -> None:
    """What it must know goes through a pipe: arguments and environment are for everybody of this user to read."""
    import subprocess

    proxies = [{**asdict(proxy), "descriptor": listening.fileno()} for proxy, listening in sockets.items()]
    # Without llmctl's marker, which would make it a server of llmctl's.
    kept = {name: value for name, value in environ.items() if not name.upper().endswith("_PROXY")}
    # -I: nothing is imported from the folder where the server runs, which may be anybody's. This file needs no more
    # than Python itself has.
    child = subprocess.Popen(
        [sys.executable, "-I", Path(__file__).resolve()],
        env={name: value for name, value in kept.items() if not name.startswith(("LLMCTL_", "OLLAMA_"))},
        stdin=subprocess.PIPE,
        cwd="/",
        pass_fds=[listening.fileno() for listening in sockets.values()],
    )
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps({"parent": os.getpid(), "proxies": proxies}).encode())


async def serve(proxies: list[Upstream]) -> None:
    import asyncio

    for proxy in proxies:
        listening = socket.socket(fileno=proxy.descriptor)
        await asyncio.start_server(partial(forward, proxy), sock=listening, limit=LIMIT_BYTES)
    await asyncio.Event().wait()


async def forward(proxy: Upstream, reader: StreamReader, writer: StreamWriter) -> None:
    """One connection: the head of its request with the password, then bytes both ways until one side ends."""
    import asyncio

    opened = [writer]
    try:
        if not is_own_user(writer.get_extra_info("peername"), writer.get_extra_info("sockname")):
            refuse(writer, "403 Forbidden")
            return
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        except asyncio.LimitOverrunError:
            refuse(writer, "431 Request Header Fields Too Large")
            return
        except asyncio.TimeoutError:
            refuse(writer, "408 Request Timeout")
            return
        try:
            connecting = asyncio.open_connection(proxy.host, proxy.port, ssl=proxy.tls or None)
            far_reader, far_writer = await asyncio.wait_for(connecting, PATIENCE_SECONDS)
        except (OSError, asyncio.TimeoutError) as error:
            say(f"the proxy {proxy.host}:{proxy.port} cannot be reached: {error}")
            refuse(writer, "502 Bad Gateway")
            return
        opened.append(far_writer)
        far_writer.write(authorized(head, proxy.authorization.encode()))
        ways = {asyncio.ensure_future(relay(reader, far_writer)), asyncio.ensure_future(relay(far_reader, writer))}
        _, other = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in other:
            task.cancel()
    except (OSError, EOFError):
        return
    finally:
        for each in opened:
            each.close()


def refuse(writer: StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


async def relay(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(LIMIT_BYTES):
            writer.write(piece)
            await writer.drain()


def authorized(head: bytes, authorization: bytes) -> bytes:
    """A request's head with the password. One that is no CONNECT ends its connection: the next would go without."""
    first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    tunnel = first.startswith(b"CONNECT ")
    dropped = {b"proxy-authorization"} if tunnel else {b"proxy-authorization", b"connection", b"proxy-connection"}
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in dropped]
    added = [b"Proxy-Authorization: " + authorization, *([] if tunnel else [b"Connection: close"])]
    return b"\r\n".join([first, *kept, *added, b"", b""])


def is_own_user(peer: tuple[str, int] | None, own: tuple[str, int]) -> bool:
    """Whether the other end of a connection on the loopback is this user's: proc(5), /proc/net/tcp. A `peer` that has
    gone is nobody's."""
    if peer is None:
        return False
    ends = [entry(peer), entry(own)]
    with open("/proc/self/net/tcp") as table:  # noqa: PTH123
        for line in table:
            _, local, remote, state, _, _, _, user, *_ = line.split()
            if state == "01" and [local, remote] == ends:
                return int(user) == os.geteuid()
    return False


def entry(address: tuple[str, int]) -> str:
    """An IPv4 address as /proc/net/tcp writes it. The whole of it: another user may have the same port on 127.0.0.2."""
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"


def main() -> None:
    import asyncio
    import ctypes
    import signal

    told = json.loads(sys.stdin.buffer.read())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == told["parent"]:
        asyncio.run(serve([Upstream(**proxy) for proxy in told["proxies"]]))


if __name__ == "__main__":
    main()
