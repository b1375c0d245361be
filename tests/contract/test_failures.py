"""Failures that a real engine has and cannot be asked for: the client meets them on the fake."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llmctl.client import Chunk, Client
from llmctl.errors import EngineError, LlmctlError, ServerNotRunning, ServerUnreachable, StreamEnded
from tests.fake_ollama import BUSY, FakeOllama, Reply
from tests.parts import machine
from tests.parts.ollama import STARTER

TOKEN = {"model": STARTER, "response": "so", "done": False}


def ask(fake: FakeOllama, **settings: float) -> Iterator[Chunk]:
    return Client(fake.url).generate({"model": STARTER}, ["hello"], **settings)


def told(stream: Iterator[Chunk], error: type[LlmctlError], said: str) -> list[str]:
    """What arrived before the stream failed as it should."""
    arrived: list[str] = []
    with pytest.raises(error, match=said):
        arrived.extend(chunk.text for chunk in stream)
    return arrived


def test_a_stream_without_its_last_line_is_not_a_success(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=[TOKEN, TOKEN]))
    assert told(ask(fake), StreamEnded, "stopped before its end") == ["so", "so"]


def test_an_error_line_in_the_middle_keeps_what_arrived(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=[TOKEN, {"error": "an error was encountered while running the model"}]))
    assert told(ask(fake), EngineError, "while running the model") == ["so"]


def test_a_dropped_connection_is_said(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=[TOKEN], cut=True))
    assert told(ask(fake), StreamEnded, "stopped before its end") == ["so"]


def test_a_line_that_is_not_json_is_said(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=[TOKEN, "<html>\n"]))
    assert told(ask(fake), ServerUnreachable, "not JSON") == ["so"]


def test_a_silent_server_is_given_up_when_asked_to(fake: FakeOllama) -> None:
    release = threading.Event()
    fake.script("/api/generate", Reply(lines=[TOKEN], hold=release))
    try:
        assert told(ask(fake, silence_seconds=0.2), ServerUnreachable, "does not answer") == ["so"]
    finally:
        release.set()


def test_a_full_queue_is_the_engines_own_words(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(503, {"error": BUSY}))
    with pytest.raises(EngineError, match="maximum pending requests exceeded"):
        list(ask(fake))


def test_an_empty_403_is_explained(fake: FakeOllama) -> None:
    fake.script("/api/tags", Reply(403))
    with pytest.raises(ServerUnreachable, match="403"):
        Client(fake.url).tags()


def test_another_program_on_the_port_is_not_an_engine(fake: FakeOllama) -> None:
    fake.script("/api/version", Reply(200, b"<html>hello</html>"))
    with pytest.raises(ServerUnreachable, match="not JSON"):
        Client(fake.url).version()


def test_nothing_listens() -> None:
    with pytest.raises(ServerNotRunning) as refused:
        Client(f"http://127.0.0.1:{machine.free_port()}").version()
    assert refused.value.hint == "llmctl up"


def test_ps_is_empty_while_a_load_is_under_way(fake: FakeOllama) -> None:
    fake.load_gate.clear()
    client = Client(fake.url)
    loading = threading.Thread(target=client.load, args=(STARTER,))
    loading.start()
    try:
        while not fake.requests:
            pass
        assert client.ps() == []
    finally:
        fake.load_gate.set()
        loading.join()
    assert [model.name for model in client.ps()] == [STARTER]


def test_a_pull_without_success_is_a_failure(fake: FakeOllama) -> None:
    fake.script("/api/pull", Reply(lines=[{"status": "pulling manifest"}, {"status": "verifying sha256 digest"}]))
    with pytest.raises(EngineError, match="verifying sha256 digest"):
        list(Client(fake.url).pull("qwen3:8b-q4_K_M"))
