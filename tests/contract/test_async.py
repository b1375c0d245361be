"""AsyncClient says what Client says: the same answers and the same errors, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from llmctl.client import AsyncClient, Chunk
from llmctl.errors import EngineError, NotFound, PromptTooLong, ServerNotRunning, StreamEnded
from tests.contract.conftest import Engine
from tests.fake_ollama import FakeOllama, Reply
from tests.parts import machine
from tests.parts.ollama import STARTER

T = TypeVar("T")


def run(url: str, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with AsyncClient(url) as client:
            return await work(client)

    return asyncio.run(inside())


async def ask(client: AsyncClient, prompt: str, model: str = STARTER) -> list[Chunk]:
    options = {"num_predict": 4, "temperature": 0, "seed": 1}
    fields = {"model": model, "truncate": False, "options": options}
    return [chunk async for chunk in client.generate(fields, [prompt])]


def test_it_answers_as_the_synchronous_client_does(engine_api: Engine) -> None:
    chunks = run(engine_api.url, lambda client: ask(client, "The capital of France is"))
    options = {"num_predict": 4, "temperature": 0, "seed": 1}
    same = list(engine_api.client.generate({"model": STARTER, "options": options}, ["The capital of France is"]))
    assert "".join(chunk.text for chunk in chunks) == "".join(chunk.text for chunk in same)
    assert chunks[-1].usage is not None


def test_it_lists_loads_and_unloads(engine_api: Engine) -> None:
    async def work(client: AsyncClient) -> tuple[str, str, str]:
        await client.load(STARTER)
        [loaded] = await client.ps()
        [installed] = await client.tags()
        await client.unload(STARTER)
        return await client.version(), loaded.digest, installed.digest

    version, loaded, installed = run(engine_api.url, work)
    assert version == engine_api.client.version()
    assert loaded == installed


def test_a_prompt_that_does_not_fit_has_both_numbers(engine_api: Engine) -> None:
    with pytest.raises(PromptTooLong, match="2048"):
        run(engine_api.url, lambda client: ask(client, "one " * 2400))


def test_an_unknown_model_is_not_found(engine_api: Engine) -> None:
    with pytest.raises(NotFound):
        run(engine_api.url, lambda client: ask(client, "hello", "nobody:latest"))


def test_failures_on_the_way(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=[{"model": STARTER, "response": "so", "done": False}]))
    with pytest.raises(StreamEnded):
        run(fake.url, lambda client: ask(client, "hello"))
    fake.script("/api/generate", Reply(lines=[{"error": "the runner ended"}]))
    with pytest.raises(EngineError, match="the runner ended"):
        run(fake.url, lambda client: ask(client, "hello"))


def test_nobody_there_is_not_running() -> None:
    with pytest.raises(ServerNotRunning):
        run(f"http://127.0.0.1:{machine.free_port()}", lambda client: client.version())
