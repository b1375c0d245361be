"""Asking a registry what a name stands for: the answer, and every way in which it is none."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from llmctl.core.model import ModelRef
from llmctl.errors import DownloadFailed, LlmctlError, NotFound
from llmctl.system import registry as asking
from llmctl.system.download import http_errors
from llmctl.system.registry import RegistryUnreachable
from tests.parts import registry as parts
from tests.registry_server import Fault, Registry, digest_of, serving


@pytest.fixture
def published(registry: Registry, tmp_path: Path) -> tuple[Registry, ModelRef, str]:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    digest = registry.add("m:t", weights, digest_of(b"weights"), template="{{ .Prompt }}")
    return registry, ModelRef.parse(registry.name("m:t")), digest


Published = tuple[Registry, ModelRef, str]


def test_the_manifest_is_identified_by_its_bytes(published: Published) -> None:
    registry, ref, digest = published
    manifest = asking.manifest(ref, {})
    assert manifest.digest == digest
    assert manifest.weights is not None
    assert manifest.weights.digest == digest_of(b"weights")
    assert manifest.weights.size_bytes == 7
    assert [layer.media_type.rpartition(".")[2] for layer in manifest.layers] == ["model", "template"]
    assert {layer.digest for layer in manifest.blobs} == set(registry.blobs)
    assert b'"file_type": "Q4_K_M"' in (asking.small_blob(ref, manifest.config, {}) or b"")


def test_a_public_registry_that_wants_a_token_gives_one(published: Published) -> None:
    registry, ref, digest = published
    registry.fault = "token"
    assert asking.manifest(ref, {}).digest == digest
    assert [line for line in registry.asked if line.startswith("GET /token?service=r&scope=repository%3Am%3Apull")]


def test_a_token_without_end_is_not_read(published: Published) -> None:
    registry, ref, _ = published
    registry.fault = "token"
    registry.token = "x" * (5 << 20)
    with pytest.raises(DownloadFailed, match=r"/token.* sent more than") as caught:
        asking.manifest(ref, {})
    assert caught.value.code == "registry_answer"


@pytest.mark.parametrize(
    ("fault", "error", "code", "said"),
    [
        ("login", DownloadFailed, "registry_login", "login"),
        ("missing", NotFound, "model_not_found", "has no model"),
        ("too_old", DownloadFailed, "engine_too_old", "newer Ollama"),
        ("busy", DownloadFailed, "registry_busy", "in 17 seconds"),
        ("page", RegistryUnreachable, "registry_unreachable", "web page"),
        ("broken", DownloadFailed, "download_failed", "no list of layers"),
        ("truncated", RegistryUnreachable, "registry_unreachable", "manifests/t"),
        ("loop", RegistryUnreachable, "registry_unreachable", "redirects"),
        ("huge", DownloadFailed, "registry_answer", "sent more than"),
    ],
)
def test_what_is_no_answer_names_the_registry(
    published: Published, fault: Fault, error: type[LlmctlError], code: str, said: str
) -> None:
    registry, ref, _ = published
    registry.fault = fault
    with pytest.raises(error) as caught:
        asking.manifest(ref, {})
    assert caught.value.code == code
    assert registry.host in caught.value.message
    assert said in caught.value.message


def test_a_registry_that_stops_in_the_middle_is_given_up(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, ref, _ = published
    registry.fault = "stall"
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)
    with pytest.raises(RegistryUnreachable):
        asking.manifest(ref, {})


def test_nobody_there() -> None:
    with socket.socket() as bound:
        # Bound and not listening: connections are refused.
        bound.bind(("127.0.0.1", 0))
        ref = ModelRef.parse(f"127.0.0.1:{bound.getsockname()[1]}/library/m")
        with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1"):
            asking.manifest(ref, {})


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "x..localhost"])
def test_a_host_that_can_be_none_is_told_of(host: str) -> None:
    with pytest.raises(DownloadFailed, match="no name of a host"):
        asking.manifest(ModelRef.parse(f"{host}/library/m:t"), {})
    with pytest.raises(DownloadFailed, match="no name of a host"), http_errors(f"https://{host}/"):
        httpx.get(f"https://{host}/", trust_env=False)


@pytest.mark.parametrize("size", [1 << 53, 10**400])
def test_a_size_that_no_file_has_is_no_manifest(published: Published, size: int) -> None:
    registry, ref, _ = published
    content = json.loads(registry.manifests["m/t"])
    content["layers"][0]["size"] = size
    registry.manifests["m/t"] = json.dumps(content).encode()
    with pytest.raises(DownloadFailed, match="a layer has the size"):
        asking.manifest(ref, {})


def test_a_way_through_a_place_without_encryption_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands in between could have changed the address that comes next."""
    authority = parts.authority(tmp_path / "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    with (
        serving(tmp_path / "first", context) as first,
        serving(tmp_path / "between", address="127.0.0.2") as between,
        serving(tmp_path / "last", context) as last,
    ):
        (tmp_path / "weights").write_bytes(b"weights")
        last.add("m:t", tmp_path / "weights", digest_of(b"weights"))
        first.fault, first.elsewhere = "unencrypted", f"http://{between.host}"
        between.fault, between.elsewhere = "unencrypted", f"https://{last.host}"
        with pytest.raises(DownloadFailed, match="without encryption") as caught:
            asking.manifest(ModelRef.parse(first.name("m:t")), {})
        assert caught.value.code == "registry_answer"
        assert (between.asked, last.asked) == ([], [])


def test_a_token_is_not_asked_for_elsewhere(published: Published, registry: Registry) -> None:
    registry, ref, _ = published
    registry.fault = "token"
    other = registry.host.replace("127.0.0.1", "localhost")
    elsewhere = ModelRef(other, ref.namespace, ref.model, ref.tag)
    with pytest.raises(DownloadFailed) as caught:
        asking.manifest(elsewhere, {})
    assert caught.value.code == "registry_login"
    assert not [line for line in registry.asked if "/token" in line]


def test_only_a_registry_on_this_machine_is_spoken_to_without_tls() -> None:
    assert asking.base_url(ModelRef.parse("qwen3:8b")) == "https://registry.ollama.ai/v2/library/qwen3"
    assert asking.base_url(ModelRef.parse("127.0.0.1:5/library/m")).startswith("http://127.0.0.1:5/")
    assert asking.base_url(ModelRef.parse("10.0.0.1:5/library/m")).startswith("https://10.0.0.1:5/")
