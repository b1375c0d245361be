"""A registry on loopback, a library over a real server, and consent that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmctl.client import Client
from llmctl.core.pin import Lock
from llmctl.core.profile import ModelSpec
from llmctl.core.progress import Step
from llmctl.library import Library
from llmctl.library.obtain import Pinned
from llmctl.system.paths import Paths, from_environment
from llmctl.system.store import Store
from tests.conftest import StartOllama
from tests.parts import starter
from tests.parts.ollama import OllamaServer
from tests.registry_server import Registry, serving

STARTER_DIGEST = f"sha256:{starter.SHA256}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "registry") as running:
        yield running


@dataclass
class Told:
    """What a service said and asked."""

    steps: list[Step] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    @property
    def details(self) -> str:
        return "\n".join(step.detail for step in self.steps)


@dataclass
class Desk:
    """One library, used as `up` uses it: what it pins is in the lock of the next call."""

    server: OllamaServer
    paths: Paths
    lock: Lock = field(default_factory=Lock)
    told: Told = field(default_factory=Told)
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return Client(self.server.url)

    @property
    def library(self) -> Library:
        return Library(self.client, self.paths, self.environ)

    def ensure(self, name: str, *, update: bool = False, store: bool = True, **spec: Any) -> Pinned:
        self.told = Told()
        pinned = self.library.ensure(
            ModelSpec(name, **spec),
            self.lock,
            server_context=2048,
            engine_version="0.34.0",
            store=self.server.models if store else None,
            update=update,
            progress=self.told.steps.append,
            consent=self.told.questions.append,
        )
        self.lock = self.lock.with_pin(pinned.pin)
        return pinned

    def make(self, name: str, gguf: Path) -> None:
        """A model that llmctl knows nothing of."""
        if not self.client.has_blob(STARTER_DIGEST):
            self.client.put_blob(STARTER_DIGEST, gguf)
        list(self.client.create(name, files={"m.gguf": STARTER_DIGEST}, template="{{ .Prompt }}"))

    def tags(self) -> dict[str, str]:
        return {model.name: model.digest for model in self.client.tags()}


@pytest.fixture
def paths(home: Path) -> Paths:
    return from_environment({"LLMCTL_CACHE_DIR": str(home / "cache"), "LLMCTL_DATA_DIR": str(home / "data")})


@pytest.fixture
def desk(ollama_server: StartOllama, paths: Paths) -> Desk:
    """A library over a real server with an empty store."""
    return Desk(ollama_server(), paths)


@pytest.fixture
def published(registry: Registry, starter_gguf: Path) -> Registry:
    """The registry with the real starter weights as `m:q4_K_M`, with a template."""
    registry.add("m:q4_K_M", starter_gguf, STARTER_DIGEST, template="{{ .Prompt }}")
    return registry


@pytest.fixture
def served(pinned: Pinned, ollama_server: Callable[[], OllamaServer], published: Registry) -> tuple[Pinned, Any]:
    """The starter, pulled out of a registry by llmctl into the store of a real server: `pinned` is each file's own."""
    server = ollama_server()
    pinned.url, pinned.store = server.url, Store(server.models)
    done = pinned("pull", published.name("m:q4_K_M"), "--yes", given=False)
    assert done.code == 0, done.err
    return pinned, server
