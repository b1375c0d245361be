"""`ask` against the fake and against a real server, after an `up` that is written down and did not happen."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from llmctl.cli import main
from llmctl.core.server_state import ActiveModel, ServerState
from llmctl.env import Env
from llmctl.server import Server
from llmctl.system.paths import from_environment
from tests.fake_ollama import FakeModel, FakeOllama, running
from tests.parts.ollama import STARTER, OllamaServer

CHECKOUT = Path(__file__).parents[2]
ALIAS = "llmctl/small:0123456789ab"


def record_up(url: str, alias: str, digest: str, context: int = 2048) -> None:
    """What `up` leaves behind for a model that people call `small`."""
    model = ActiveModel(
        name="small",
        served="starter:latest",
        alias=alias,
        manifest_digest=f"sha256:{digest}",
        served_digest=f"sha256:{digest}",
        weights_digest="sha256:" + "ab" * 32,
        quantization="Q4_K_M",
        context=context,
        size_bytes=253_113_024,
        verdict="proved",
        place="cpu",
    )
    state = ServerState("own.yaml", url, "foreign", "0.34.0", None, "none", context, 1, "f16", (model,))
    Server(from_environment(os.environ), os.environ).record(state)


@dataclass(frozen=True)
class Asked:
    """How an `ask` ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def error(self) -> dict[str, Any]:
        """What is on stderr, or in the document of a refusal."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1] if self.err else self.out)["error"]
        return found


class Terminal(io.TextIOWrapper):
    """Standard input of somebody who sits at a terminal and types nothing."""

    def isatty(self) -> bool:
        return True


Ask = Callable[..., Asked]


@pytest.fixture
def ask() -> Ask:
    """`ask` in this process; `stdin` is what is piped in, None a terminal."""

    def run(*arguments: str, stdin: bytes | None = None) -> Asked:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        given = Terminal(io.BytesIO()) if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        code = main(["ask", *arguments], Env(os.environ, given, out, err))
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
        return Asked(code, *texts)

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[bytes]]:
    """`ask` as a process of its own."""

    def start(*arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL, **more: Any) -> subprocess.Popen[bytes]:
        settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": CHECKOUT, **more}
        return subprocess.Popen([sys.executable, "-m", "llmctl", "ask", *arguments], stdin=stdin, **settings)

    return start


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with running() as server:
        model = FakeModel(weights="ab" * 32)
        server.models[ALIAS] = model
        record_up(server.url, ALIAS, model.digest)
        yield server


@pytest.fixture
def real(ollama_with_starter: OllamaServer) -> OllamaServer:
    """A real server with the starter loaded. Mark: `real("ollama", "model")`."""
    ollama_with_starter.post("/api/generate", {"model": STARTER})
    record_up(ollama_with_starter.url, STARTER, ollama_with_starter.ps()["digest"])
    return ollama_with_starter


def sent(fake: FakeOllama) -> dict[str, Any]:
    """The one request to /api/generate."""
    bodies = [body for _, path, body in fake.requests if path == "/api/generate"]
    assert len(bodies) == 1
    return bodies[0]
