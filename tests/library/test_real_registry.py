"""A registry as teams run it: Ollama pushes the weights there, llmctl pulls and pins them, over http and https."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmctl.cli import main
from llmctl.core.pin import Pin
from llmctl.env import Env
from llmctl.errors import ExitCode
from llmctl.library import lock_file
from tests.conftest import StartOllama
from tests.parts import starter
from tests.parts.ollama import STARTER, OllamaServer
from tests.parts.registry import RealRegistry

pytestmark = pytest.mark.real("ollama", "model", "registry")


def pushed(registry: RealRegistry, server: OllamaServer, model: str = "team/starter:q4_K_M") -> str:
    """The starter in the registry, by way of a real `ollama push`; its name there."""
    name = f"{registry.host}/{model}"
    server.post("/api/copy", {"source": STARTER, "destination": name})
    said = server.post("/api/push", {"model": name, "insecure": registry.authority is None})
    assert said["status"] == "success"
    return name


def typed(server: OllamaServer, folder: Path, words: list[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    stdin, stdout, stderr = io.StringIO(), io.StringIO(), io.StringIO()
    folder.mkdir(exist_ok=True)
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environ.items():
            patch.setenv(key, value)
        settings = {**os.environ, "OLLAMA_HOST": server.url, "LLMCTL_CONFIG_DIR": str(folder)}
        code = main(words, Env(settings, stdin, stdout, stderr))
    return code, stdout.getvalue(), stderr.getvalue()


def pin_of(folder: Path) -> Pin:
    return lock_file.read(folder / "profile.lock").models[0]


def test_pushed_by_ollama_and_pulled_over_http(
    real_registry: RealRegistry, ollama_server: StartOllama, tmp_path: Path
) -> None:
    name = pushed(real_registry, ollama_server(with_starter=True))
    server = ollama_server()
    code, out, err = typed(server, tmp_path / "config", ["pull", name, "--yes", "--json"], {})
    assert code == 0, err
    assert json.loads(out)["weights_digest"] == f"sha256:{starter.SHA256}"
    pin = pin_of(tmp_path / "config")
    assert pin.from_ == f"http://{real_registry.host}/v2/team/starter/manifests/q4_K_M"
    assert any("PUT /v2/team/starter/manifests/q4_K_M" in line for line in real_registry.asked())
    assert server.post("/api/generate", {"model": pin.alias, "prompt": "Paris", "options": {"num_predict": 1}})["done"]


def test_pushed_by_ollama_and_pulled_over_https(
    https_registry: RealRegistry, ollama_server: StartOllama, tmp_path: Path
) -> None:
    trust = https_registry.environ
    name = pushed(https_registry, ollama_server(trust, with_starter=True))
    server = ollama_server(trust)
    code, out, err = typed(server, tmp_path / "config", ["pull", name, "--yes", "--json"], trust)
    assert code == 0, err
    assert json.loads(out)["weights_digest"] == f"sha256:{starter.SHA256}"
    assert pin_of(tmp_path / "config").from_.startswith(f"https://{https_registry.host}/v2/team/starter/")


def test_a_certificate_that_nobody_signed_for_is_named(
    https_registry: RealRegistry, ollama_server: StartOllama, tmp_path: Path
) -> None:
    server = ollama_server()
    name = f"{https_registry.host}/team/starter:q4_K_M"
    code, out, err = typed(server, tmp_path / "config", ["pull", name, "--yes"], {})
    assert code == ExitCode.FAILED
    assert out == ""
    assert "the certificate of localhost is not trusted" in err
    assert "hint: export SSL_CERT_FILE=" in err
    missing = {"SSL_CERT_FILE": str(tmp_path / "none.pem")}
    code, _, err = typed(server, tmp_path / "config", ["pull", name, "--yes"], missing)
    assert code == ExitCode.FAILED
    assert "cannot read the certificates that SSL_CERT_FILE names: no such file" in err
    assert server.get("/api/tags")["models"] == []


def test_a_server_that_does_not_trust_the_registry_says_so_itself(
    https_registry: RealRegistry, ollama_server: StartOllama, tmp_path: Path
) -> None:
    name = pushed(https_registry, ollama_server(https_registry.environ, with_starter=True))
    server = ollama_server()
    code, _, err = typed(server, tmp_path / "config", ["pull", name, "--yes"], https_registry.environ)
    assert code == ExitCode.FAILED
    assert "failed to verify certificate" in err
    assert "hint: " in err
    assert server.get("/api/tags")["models"] == []
