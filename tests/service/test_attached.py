"""Ollama's servers that another user runs: what may be said of them, and what may not."""

from __future__ import annotations

import pytest

from tests.parts import machine
from tests.parts.systemd import Container
from tests.service.conftest import ENGINE, STARTER_STORE, Ask
from tests.service.installing import Service

pytestmark = pytest.mark.real("systemd", "ollama", "model")

STORE = "/var/lib/ollama/models"


def serve(container: Container, ask: Ask, name: str) -> int:
    """A server of the user ollama; its port."""
    port = machine.free_port()
    settings = {"HOME": "/var/lib/ollama", "OLLAMA_MODELS": STORE, "OLLAMA_HOST": f"127.0.0.1:{port}"}
    variables = [f"--setenv={key}={value}" for key, value in settings.items()]
    container.run("systemd-run", f"--unit={name}", "--uid=ollama", *variables, ENGINE / "bin/ollama", "serve")
    container.wait(lambda: ask(port, "/api/version"), 60, f"{name} to answer")
    return port


def test_a_runner_is_its_servers_own_or_unknown(container: Container, ask: Ask) -> None:
    container.run("useradd", "--system", "--create-home", "--home-dir", "/var/lib/ollama", "ollama")
    container.run("cp", "-r", STARTER_STORE, STORE)
    container.run("chown", "-R", "ollama:ollama", "/var/lib/ollama")
    container.run("useradd", "--create-home", "ann")
    made = Service(container, serve(container, ask, "one.service"))
    profile = made.profile("/home/ann/my.yaml")
    container.run("chown", "-R", "ann:ann", "/home/ann")
    up = made.llmctl("up", profile, "--yes", "--json", user="ann")
    assert up.code == 0, up.err
    (runner,) = container.pids("one.service", "llama-server")
    assert made.llmctl("status", "--json", user="ann").json["models"][0]["runner_pid"] == runner

    # Ann may not see which of two servers listens at the port, so which runner is whose is not known either.
    other = serve(container, ask, "two.service")
    ask(other, "/api/generate", {"model": up.json["models"][0]["alias"], "keep_alive": -1})
    assert len(container.pids("two.service", "llama-server")) == 1
    (model,) = made.llmctl("status", "--json", user="ann").json["models"]
    assert (model["runner_pid"], model["runner_bytes"], model["measured_bytes"]) == (None, None, None)
    (model,) = made.llmctl("up", profile, "--json", user="ann").json["models"]
    assert model["runner_pid"] is None
    # Root may look.
    (model,) = made.llmctl("up", profile, "--json").json["models"]
    assert model["runner_pid"] == runner
