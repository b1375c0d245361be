"""The forwarder that knows a proxy's password."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from llmctl.system import forward
from tests.parts import machine, proxy, registry, rootfs

BODY = b"weights" * 300_000
# What becomes of `engine serve`: a program that was handed the addresses, here one that prints them and waits.
BECOME = """\
import json, os, sys
from llmctl.system import forward
handed = forward.without_passwords(json.loads(sys.argv[1]), os.environ)
print(json.dumps(handed), flush=True)
os.execvp("sleep", ["sleep", "600"])
"""


@contextmanager
def server(
    variables: dict[str, str], environ: dict[str, str] | None = None, folder: Path | None = None
) -> Iterator[dict[str, str]]:
    """What a server is handed for these variables, while it runs in `folder`; its forwarder ends with it."""
    child = subprocess.Popen(
        [*machine.ENDS_WITH_TESTS, sys.executable, "-c", BECOME, json.dumps(variables)],
        env={**os.environ, "PYTHONPATH": str(rootfs.CHECKOUT), **(environ or {})},
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout
        line = child.stdout.readline()
        forwarders = psutil.Process(child.pid).children()
        try:
            yield json.loads(line)
        finally:
            child.kill()
            _, alive = psutil.wait_procs(forwarders, timeout=20)
            assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def website() -> Iterator[int]:
    """The port of an http server that answers everything with BODY."""

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


def get(handed: str, port: int, *, tunnel: bool) -> tuple[int, bytes]:
    """A GET through the proxy that `handed` names."""
    address = urlsplit(handed)
    assert address.hostname == "127.0.0.1"
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    if tunnel:
        connection.set_tunnel("site.example", port)
    connection.request("GET", "/" if tunnel else f"http://site.example:{port}/")
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.real("registry")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_go_on_with_the_password(tmp_path: Path, website: int, scheme: str) -> None:
    authority = registry.authority(tmp_path / "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    with proxy.serving("me", "ge@heim", context if scheme == "https" else None) as company:
        url = f"{scheme}://me:ge%40heim@127.0.0.1:{company.port}"
        trust = {"SSL_CERT_FILE": str(authority.certificate)}
        with server({"HTTP_PROXY": url, "HTTPS_PROXY": url}, trust) as handed:
            assert "heim" not in str(handed)
            assert get(handed["HTTPS_PROXY"], website, tunnel=True) == (200, BODY)
            assert get(handed["HTTP_PROXY"], website, tunnel=False) == (200, BODY)
        asked = [first.rpartition(" ")[0] for first in company.forwarded]
        assert asked == [f"CONNECT site.example:{website}", f"GET http://site.example:{website}/"]
        assert company.refused == []


def test_a_proxy_that_is_not_there_is_said(website: int) -> None:
    with server({"HTTP_PROXY": f"me:geheim@127.0.0.1:{machine.free_port()}"}) as handed:
        assert get(handed["HTTP_PROXY"], website, tunnel=False) == (502, b"")


def test_nothing_is_imported_from_where_the_server_runs(tmp_path: Path, website: int) -> None:
    (tmp_path / "asyncio.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with server({"HTTP_PROXY": f"me:geheim@127.0.0.1:{machine.free_port()}"}, folder=tmp_path) as handed:
        assert get(handed["HTTP_PROXY"], website, tunnel=False) == (502, b"")
    assert not (tmp_path / "ran").exists()


def test_a_head_that_never_ends_is_said(website: int) -> None:
    with server({"HTTP_PROXY": f"me:geheim@127.0.0.1:{website}"}) as handed:
        address = urlsplit(handed["HTTP_PROXY"])
        with socket.create_connection((address.hostname, address.port), timeout=60) as client:  # type: ignore[arg-type]
            client.sendall(b"GET http://site.example/ HTTP/1.1\r\nX: " + b"x" * forward.LIMIT_BYTES)
            assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_another_user_with_the_same_port_on_another_address_is_another(website: int) -> None:
    with socket.create_connection(("127.0.0.1", website)) as client:
        (_, port), own = client.getsockname(), client.getpeername()
        assert forward.is_own_user(("127.0.0.1", port), own)
        assert not forward.is_own_user(("127.0.0.2", port), own)
        assert not forward.is_own_user(("127.0.0.1", port), ("127.0.0.2", website))
        # Who has gone already.
        assert not forward.is_own_user(None, own)


def test_what_has_no_password_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """And so does what cannot be forwarded. What is no address may hold half of a password, and goes."""
    kept = {
        "HTTP_PROXY": "http://proxy:3128",
        "HTTPS_PROXY": "proxy:3128",
        "ALL_PROXY": "socks5://me:geheim@proxy:1080",
        "NO_PROXY": "localhost,.lan",
        "OLLAMA_API_KEY": "a@b",
    }
    assert forward.without_passwords(kept, {}) == kept
    for broken in ("http://me:ge/heim@proxy:3128", "http://me:geheim@proxy:port", "http://me:geheim@", "http://[me:@x"):
        assert forward.without_passwords({"HTTPS_PROXY": broken}, {}) == {}
    assert "heim" not in capsys.readouterr().err
