"""What `llmctl __complete` answers, which is what the scripts of all three shells ask."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmctl.cli import COMMANDS, main
from llmctl.env import Env


def complete(*words: str) -> list[str]:
    out, error = io.StringIO(), io.StringIO()
    main(["__complete", *words], Env(os.environ, io.StringIO(), out, error))
    assert error.getvalue() == ""
    return [line.partition("\t")[0] for line in out.getvalue().splitlines()]


def test_verbs() -> None:
    assert complete("") == list(COMMANDS)
    assert complete("sta") == ["status"]


def test_options_are_those_of_the_verb() -> None:
    assert complete("ask", "--m") == ["--model", "--max-tokens"]


def test_an_option_that_was_given_is_not_offered_again() -> None:
    assert complete("ask", "--stats", "--sta") == []


def test_shells() -> None:
    assert complete("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("words", [["up"], ["up", "--profile"], ["status", "--profile"], ["init"]])
def test_profiles(words: list[str]) -> None:
    assert "24gb" in complete(*words, "")
    assert complete(*words, "qui") == ["quickstart"]


def test_a_value_after_an_equals_sign_keeps_its_option() -> None:
    assert complete("up", "--profile=qui") == ["--profile=quickstart"]


def test_models_of_the_server_without_the_aliases(served: list[str]) -> None:
    assert complete("ask", "-m", "") == served
    assert complete("ask", "--model", "gemma3:2") == ["gemma3:270m-q4_K_M"]


@pytest.mark.parametrize("words", [["rm"], ["pull"], ["pull", "--update"]])
def test_models_where_a_verb_takes_one(words: list[str], served: list[str]) -> None:
    assert complete(*words, "") == served


def test_models_of_the_profile_in_force_when_no_server_runs(known: list[str]) -> None:
    assert complete("ask", "-m", "") == known


def test_models_of_the_profile_that_the_line_names(known: list[str], home: Path) -> None:
    profile = home / "other.yaml"
    profile.write_text("schema: 1\nmodels: [{name: 'qwen3:4b-q4_K_M'}]\n")

    assert complete("ask", "--profile", str(profile), "-m", "q") == ["qwen3:4b-q4_K_M"]


@pytest.mark.parametrize("content", ["", "\0", "schema: 9", "- x", "models: 3"])
def test_a_broken_profile_or_state_is_no_obstacle(home: Path, served: list[str], content: str) -> None:
    for path in (home / ".config/llmctl/profile.yaml", home / ".local/state/llmctl/state.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    assert complete("ask", "-m", "qwen") == ["qwen3:8b-q4_K_M"]


@pytest.mark.parametrize(
    "words", [["nonsense", ""], ["ask", "--nonsense", ""], ["ask", "-m"], ["status", "x", "y", ""]]
)
def test_nonsense_is_completed_with_nothing(words: list[str]) -> None:
    complete(*words)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_does_not_answer_is_not_waited_for(
    silent_server: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The fixture keeps the server silent until the test ends, so that an answer here proves that nobody waited."""
    monkeypatch.setenv("OLLAMA_HOST", silent_server)

    assert complete("ask", "-m", "") == []


@pytest.mark.parametrize("host", ["https://x", "a b", "127.0.0.1:1", "http://[::1]:1"])
def test_an_address_without_a_server_is_silence(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)

    assert complete("ask", "-m", "") == []


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from llmctl.__main__ import main; main(['__complete', ''])"],
        stdout=os.open("/dev/full", os.O_WRONLY),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )

    assert done.stderr == b""


def test_completing_a_verb_imports_no_verb() -> None:
    script = (
        "import sys; from llmctl.__main__ import main; main(['__complete', 'sta']);"
        "print([name for name in sys.modules if name.endswith(('.status', '.ask', '.lifecycle', '.config'))])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["status", "[]"]


def test_llmctls_own_address_comes_before_the_engines(
    served: list[str], tags_server: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_HOST", tags_server(["only:here"]))

    assert complete("ask", "-m", "") == ["only:here"]
