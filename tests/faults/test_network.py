"""What lies between this machine and the registry."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llmctl.system import registry as asking
from tests.conftest import StartOllama
from tests.faults import fault
from tests.faults.conftest import MIB, Box
from tests.parts import registry as parts
from tests.registry_server import PIECE_BYTES, serving

pytestmark = pytest.mark.real("ollama")


@contextmanager
def listening() -> Iterator[str]:
    """host:port of somebody who accepts connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@fault(
    what="Nobody listens where the registry should be",
    how="a port that is bound and not listened on",
    happens="exit 1, `registry_unreachable`, at once",
    left="nothing",
)
def test_connection_refused(box: Box) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        done = box("pull", f"127.0.0.1:{bound.getsockname()[1]}/library/m:t")
    assert done.code == 1
    assert "cannot connect to 127.0.0.1" in done.err
    box.nothing_happened()


@fault(
    what="The registry's name does not resolve",
    how="a host below `.invalid`",
    happens="exit 1, `registry_unreachable`, within five seconds",
    left="nothing",
)
def test_no_such_host(box: Box) -> None:
    done = box("pull", "registry.invalid/library/m:t")
    assert done.code == 1
    assert "registry.invalid" in done.err
    assert "hint: " in done.err
    box.nothing_happened()


@fault(
    what="The registry takes the connection and says nothing",
    how="a socket that accepts and is never read",
    happens="exit 1, `registry_unreachable`, after fifteen seconds (shortened in the test)",
    left="nothing",
)
def test_stalled_before_the_header(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(asking, "HANDSHAKE_SECONDS", 0.3)
    with listening() as host:
        done = box("pull", f"{host}/library/m:t")
    assert done.code == 1
    assert "127.0.0.1" in done.err
    box.nothing_happened()


@fault(
    what="The manifest stops in the middle and the connection stays",
    how="half of the announced bytes, then silence",
    happens="exit 1, `registry_unreachable`, after a second without a byte",
    left="nothing",
)
def test_stalled_in_the_manifest(box: Box) -> None:
    model = box.publish()
    box.registry.fault = "stall"
    done = box("pull", model.name)
    assert done.code == 1
    assert "stopped sending" in done.err
    box.nothing_happened()


@fault(
    what="The connection is reset while the manifest is asked for",
    how="RST in place of an answer",
    happens="exit 1, `registry_unreachable`",
    left="nothing",
)
def test_reset_at_the_manifest(box: Box) -> None:
    model = box.publish()
    box.registry.fault = "reset"
    done = box("pull", model.name)
    assert done.code == 1
    assert "cannot get" in done.err
    box.nothing_happened()


@fault(
    what="The connection is reset in the middle of the weights",
    how="RST after half of 1 MiB, once",
    happens="exit 0: the engine asks again after a second",
    left="the model, pinned",
    answer="reset",
    at_most=1.5,
)
@fault(
    what="The connection ends in the middle of the weights",
    how="the end after half of 1 MiB, once",
    happens="exit 0: the engine asks for the rest after a second, and for the rest only",
    left="the model, pinned",
    answer="truncated",
    at_most=1.0,
)
@fault(
    what="The registry is slow",
    how="4 KiB at a time with a pause after each",
    happens="exit 0, with progress",
    left="the model, pinned",
    answer="trickle",
    at_most=1.0,
)
def test_the_weights_come_with_trouble(box: Box, answer: str, at_most: float) -> None:
    model = box.publish(size_bytes=MIB)
    box.registry.blob_fault, box.registry.blob_faults_left = answer, 1  # type: ignore[assignment]
    assert box("pull", model.name).code == 0
    assert box.lock.models[0].weights_digest == model.weights
    assert model.size_bytes <= box.registry.sent[model.weights] <= at_most * model.size_bytes + PIECE_BYTES
    box.sound()


@fault(
    what="The connection is reset in the middle of a repair",
    how="RST after half of 1 MiB, once",
    happens="exit 0: llmctl asks for what is missing after a second",
    left="the model as it was pinned",
    answer="reset",
    at_most=1.5,
)
@fault(
    what="The connection ends in the middle of a repair",
    how="the end after half of 1 MiB, once",
    happens="exit 0: llmctl asks for the rest after a second, and for the rest only",
    left="the model as it was pinned",
    answer="truncated",
    at_most=1.0,
)
@fault(
    what="A repair's bytes stop and the connection stays",
    how="half of 1 MiB, then silence, once",
    happens="exit 0: after thirty seconds without a byte (shortened in the test) llmctl asks for the rest only",
    left="the model as it was pinned",
    answer="stall",
    at_most=1.0,
)
@fault(
    what="The registry of a repair knows no ranges",
    how="200 with the whole blob for every range",
    happens="exit 0",
    left="the model as it was pinned",
    answer="whole",
    at_most=1.0,
)
def test_a_repair_with_trouble(box: Box, answer: str, at_most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmctl.system.blob_download.STALL_SECONDS", 0.5)
    model = box.pulled(size_bytes=MIB)
    box.blob(model.weights).write_bytes(b"damaged")
    box.registry.sent.clear()
    box.registry.spoiled = model.weights
    box.registry.blob_fault, box.registry.blob_faults_left = answer, 1  # type: ignore[assignment]
    done = box("repair", "--yes")
    assert done.code == 0, done.err
    assert model.size_bytes <= box.registry.sent[model.weights] <= at_most * model.size_bytes + PIECE_BYTES
    box.sound()


@fault(
    what="The weights stop in the middle and the connection stays",
    how="half of 8 MiB, then silence; the person presses Ctrl-C",
    happens="exit 130; the next pull asks for the rest, and for the rest only",
    left="Ollama's `-partial` with the bytes that came",
)
def test_stalled_in_the_weights(box: Box) -> None:
    model = box.publish(size_bytes=8 * MIB)
    half = threading.Event()
    box.registry.streamed = lambda _: half.set() if box.registry.sent[model.weights] >= 4 * MIB else None
    box.registry.blob_fault, box.registry.spoiled = "stall", model.weights
    process = box.start("pull", model.name)
    assert half.wait(60)
    wait_for_partial(box, model.weights)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    box.nothing_happened()
    box.registry.blob_fault = None
    box.registry.released.set()
    assert box("pull", model.name).code == 0
    assert box.registry.sent[model.weights] <= model.size_bytes + PIECE_BYTES
    box.sound()


def wait_for_partial(box: Box, digest: str) -> None:
    """Until the engine has written the half of 8 MiB that came."""
    partial = box.blob(digest).with_name(f"{box.blob(digest).name}-partial")
    deadline = time.monotonic() + 60
    while partial.stat().st_blocks * 512 < 4 * MIB:
        assert time.monotonic() < deadline, "the engine wrote less than came"
        time.sleep(0.02)


@pytest.fixture
def secure(tmp_path: Path, ollama_server: StartOllama) -> Iterator[tuple[Box, parts.Authority]]:
    """A box whose registry speaks https with a certificate that an authority of the test's own signed."""
    authority = parts.authority(tmp_path / "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    with serving(tmp_path / "secure", context) as registry:
        yield Box(ollama_server(), registry, tmp_path / "config"), authority


@fault(
    what="The registry's certificate is not trusted",
    how="https with a certificate of an authority that nobody here knows",
    happens="exit 1; says that the certificate is the reason, and names SSL_CERT_FILE",
    left="nothing",
)
@pytest.mark.real("registry")
def test_unknown_certificate(secure: tuple[Box, parts.Authority]) -> None:
    box, _ = secure
    model = box.publish()
    done = box("pull", model.name)
    assert done.code == 1
    assert "the certificate of 127.0.0.1 is not trusted" in done.err
    assert "SSL_CERT_FILE" in done.err
    assert box.registry.asked == []
    box.nothing_happened()


@fault(
    what="The registry redirects to plain http",
    how="https answers 302 to http on another address",
    happens="exit 1, `registry_answer`: nothing is taken without encryption that was asked for with it",
    left="nothing",
)
@pytest.mark.real("registry")
def test_redirect_to_plain_http(
    secure: tuple[Box, parts.Authority], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    box, authority = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    model = box.publish()
    with serving(tmp_path / "elsewhere", address="127.0.0.2") as other:
        other.manifests = dict(box.registry.manifests)
        box.registry.fault, box.registry.elsewhere = "unencrypted", f"http://{other.host}"
        done = box("pull", model.name)
    assert done.code == 1
    assert "without encryption" in done.err
    box.nothing_happened()
