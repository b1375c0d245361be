"""A proxy that wants a password: pulls go through it, and no log and no process shows the password."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.conftest import tiny_gguf
from tests.parts import proxy
from tests.parts import registry as registry_part
from tests.parts.proxy import Proxy
from tests.parts.systemd import Container
from tests.registry_server import Registry, digest_of, serving
from tests.service.conftest import SHARED, Ask
from tests.service.installing import ENGINE_UNIT, Service, service

pytestmark = pytest.mark.real("systemd", "ollama", "registry")

# The slash has to be written as %2F in the address.
USER, PASSWORD, ENCODED = "me", "ge/heim-7361", "ge%2Fheim-7361"
TUNNEL = """\
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as forwarder:
    forwarder.sendall(b"CONNECT registry.example:443 HTTP/1.1\\r\\n\\r\\n")
    print(forwarder.recv(4096).decode())
"""
FORWARDER = "llmctl/system/forward.py"


@dataclass(frozen=True)
class Company:
    """Two registries that only the proxy finds, one over https and one over http, each with `m:t`."""

    proxy: Proxy
    names: tuple[str, str]
    authority: Path

    @property
    def url(self) -> str:
        return f"http://{USER}:{ENCODED}@127.0.0.1:{self.proxy.port}"


def publish(registry: Registry, folder: Path, seed: str) -> str:
    """`m:t`, by a name that only the proxy knows. Ollama asks for it through no proxy where it is of this machine."""
    content = tiny_gguf(seed, 3 << 20)
    weights = folder / f"{seed}.gguf"
    weights.write_bytes(content)
    registry.add("m:t", weights, digest_of(content))
    port = registry.host.partition(":")[2]
    registry.host = f"registry.example:{port}"
    return registry.name("m:t")


@pytest.fixture
def company(tmp_path: Path, shared: Path) -> Iterator[Company]:
    authority = registry_part.authority(tmp_path / "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    (shared / "ca.pem").write_bytes(authority.certificate.read_bytes())
    with ExitStack() as stack:
        secure = stack.enter_context(serving(tmp_path / "secure", context))
        plain = stack.enter_context(serving(tmp_path / "plain"))
        names = (publish(secure, tmp_path, "secure-weights"), f"http://{publish(plain, tmp_path, 'plain-weights')}")
        yield Company(stack.enter_context(proxy.serving(USER, PASSWORD)), names, SHARED / "ca.pem")


def shown(made: Service) -> str:
    """All that the journal, systemd and /proc show of the units."""
    container = made.container
    pids = container.pids(ENGINE_UNIT)
    files = [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "cmdline")]
    processes = container.run("sh", "-c", 'cat "$@" | tr "\\0" "\\n"', "sh", *files).stdout
    assert FORWARDER in processes
    assert "OLLAMA_MODELS=/var/lib/llmctl/models" in processes
    journal = json.dumps(container.journal())
    assert "server config" in journal
    return processes + journal + container.run("systemctl", "show", ENGINE_UNIT).stdout


def test_its_password_is_shown_nowhere(container: Container, company: Company, ask: Ask) -> None:
    made = service(container)
    made.add_to_engine("[Service]", f"Environment=SSL_CERT_FILE={company.authority}")
    proxies = {"HTTPS_PROXY": company.url, "HTTP_PROXY": company.url, "NO_PROXY": "127.0.0.1,localhost"}
    assert made.install(environ=proxies).code == 0
    container.wait(lambda: ask(made.port, "/api/version"), 60, "the server's answer")
    for name in company.names:
        assert ask(made.port, "/api/pull", {"model": name, "insecure": name.startswith("http:")})["status"] == "success"
    assert {first.split(" ")[0] for first in company.proxy.forwarded} >= {"CONNECT", "GET"}
    assert company.proxy.refused == []
    said = shown(made)
    for secret in (PASSWORD, ENCODED, company.proxy.authorization.split(" ")[1]):
        assert secret not in said

    # Who is neither the server's user nor root has no use of it.
    (server,) = container.pids(ENGINE_UNIT, "ollama")
    environ = dict(each.split("=", 1) for each in container.read(f"/proc/{server}/environ").split("\0") if each)
    assert environ["NO_PROXY"] == proxies["NO_PROXY"]
    address = urlsplit(environ["HTTPS_PROXY"])
    container.run("useradd", "ann")
    asked = len(company.proxy.forwarded)
    answers = [
        container.run("python3", "-c", TUNNEL, str(address.port), user=user).stdout.split()[1]
        for user in ("ann", "llmctl")
    ]
    assert answers == ["403", "200"]
    assert company.proxy.forwarded[asked:] == ["CONNECT registry.example:443 HTTP/1.1"]

    # The forwarder ends with its server, and the next server has one of its own.
    forwarders = [pid for pid in container.pids(ENGINE_UNIT) if pid != server]
    container.signal(server, signal.SIGKILL)
    container.wait(lambda: container.pids(ENGINE_UNIT, "ollama") not in ([], [server]), 60, "another server")
    container.wait(lambda: ask(made.port, "/api/version"), 60, "the server's answer")
    assert len(container.pids(ENGINE_UNIT)) == 2
    assert not set(forwarders) & set(container.pids(ENGINE_UNIT))
    asked = len(company.proxy.forwarded)
    assert ask(made.port, "/api/pull", {"model": company.names[0]})["status"] == "success"
    assert len(company.proxy.forwarded) > asked
