"""`ask` against a real Ollama and a real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.ask.conftest import Ask, record_up
from tests.conftest import StartOllama
from tests.parts.ollama import STARTER, OllamaServer

pytestmark = pytest.mark.real("ollama", "model")
CANCELLED = "cancel task"
FOX = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep. "


def runners(server: OllamaServer) -> list[int]:
    return [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]


def test_it_answers_without_a_reload(real: OllamaServer, ask: Ask) -> None:
    before = runners(real)

    asked = ask("The capital of France is", "--max-tokens", "8", "--temperature", "0", "--seed", "1", "--stats")

    assert (asked.code, len(asked.out) > 1) == (0, True)
    assert "8 tokens" in asked.err
    assert "context 2048" in asked.err
    assert runners(real) == before != []


def test_the_same_seed_gives_the_same_answer(real: OllamaServer, ask: Ask) -> None:
    settings = ["--max-tokens", "12", "--seed", "7", "--temperature", "0"]

    assert ask("Once upon a time", *settings).out == ask("Once upon a time", *settings).out


def test_a_prompt_that_is_too_long_names_both_numbers(real: OllamaServer, ask: Ask) -> None:
    asked = ask(stdin=b"word " * 4000)

    assert (asked.code, asked.out) == (6, "")
    assert "the prompt is 4002 tokens long and the context holds 2048" in asked.err


def test_ten_megabytes_are_too_long_in_the_same_words(real: OllamaServer, ask: Ask) -> None:
    asked = ask("--json", stdin=b"word " * 2_000_000)

    assert asked.code == 6
    assert "2000002 tokens long and the context holds 2048" in asked.error["message"]


def test_a_context_shift_is_said(ollama_server: StartOllama, ask: Ask) -> None:
    """The engine answers 200, whole and `length` as asked; that the oldest tokens are gone shows in the counts only."""
    server = ollama_server(with_starter=True)
    server.post("/api/create", {"model": "short", "from": STARTER, "parameters": {"num_ctx": 256}})
    server.post("/api/generate", {"model": "short"})
    record_up(server.url, "short", server.ps("short:latest")["digest"], context=256)

    asked = ask("--max-tokens", "60", "--seed", "3", "--json", stdin=FOX.encode() * 12)

    assert asked.code == 6
    assert asked.document["cut"] == "context_shift"
    assert asked.document["prompt_tokens"] + asked.document["completion_tokens"] > 256
    assert asked.error["code"] == "answer_cut"


def test_an_answer_that_fits_its_schema(real: OllamaServer, ask: Ask, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"big": {"type": "boolean"}}, "required": ["big"]}))

    asked = ask("Is Paris big? As JSON:", "--schema", str(schema), "--max-tokens", "40", "--temperature", "0")

    assert asked.code == 0
    assert isinstance(json.loads(asked.out)["big"], bool)


def test_a_name_that_nothing_knows(real: OllamaServer, ask: Ask) -> None:
    asked = ask("hello", "-m", "absent:1b")

    assert (asked.code, asked.err) == (4, "error: model 'absent:1b' not found\nhint: llmctl list\n")


def test_a_model_that_does_not_think(real: OllamaServer, ask: Ask) -> None:
    asked = ask("hello", "--think")

    assert asked.code == 1
    assert "does not support thinking" in asked.err


def test_interrupting_ends_the_generation_on_the_server(
    real: OllamaServer, process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """The runner itself says in its log that it dropped the task, which it would otherwise have gone on with."""
    running = process("Once upon a time", "--temperature", "0")
    assert running.stdout is not None
    os.read(running.stdout.fileno(), 100)
    before = real.log.count(CANCELLED)

    running.send_signal(signal.SIGINT)
    _, err = running.communicate()

    assert (running.returncode, err) == (130, b"interrupted\n")
    deadline = time.monotonic() + 60
    while real.log.count(CANCELLED) == before:
        assert time.monotonic() < deadline, real.log
        time.sleep(0.02)
    assert real.ps(STARTER)["context_length"] == 2048
