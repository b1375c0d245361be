"""One server fixture, twice: the fake and the real `ollama serve`."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from llmctl.client import Client
from tests.fake_ollama import FakeModel, FakeOllama, running
from tests.parts.ollama import STARTER, OllamaServer


@dataclass
class Engine:
    """A server with `starter:latest` at context 2048, loaded or not. `raw` is plain HTTP beside the client."""

    url: str
    port: int

    @property
    def client(self) -> Client:
        return Client(self.url)

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with running() as server:
        server.models[STARTER] = FakeModel(weights="ab" * 32)
        yield server


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real("ollama", "model"))])
def engine_api(request: pytest.FixtureRequest) -> Iterator[Engine]:
    server: FakeOllama | OllamaServer = request.getfixturevalue(
        "fake" if request.param == "fake" else "ollama_with_starter"
    )
    engine = Engine(server.url, server.port)
    yield engine
    for model in engine.client.tags():
        if model.name != STARTER:
            engine.client.delete(model.name)
