"""What becomes the prompt, and what is sent with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ask.conftest import ALIAS, Ask, sent
from tests.fake_ollama import FakeOllama


def test_the_prompt_and_nothing_that_reloads_a_model(fake: FakeOllama, ask: Ask) -> None:
    assert ask("hello").code == 0

    assert sent(fake) == {"model": ALIAS, "truncate": False, "prompt": "hello"}


def test_every_option_at_once_still_reloads_nothing(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    options = ["--max-tokens", "5", "--seed", "7", "--temperature", "0.5", "--no-think", "--timeout", "60"]

    ask("hello", "-s", "Be brief.", "--schema", str(schema), *options, "--stats", "--json")

    body = sent(fake)
    assert set(body) == {"model", "prompt", "system", "format", "think", "options", "truncate"}
    assert set(body["options"]) == {"num_predict", "seed", "temperature"}
    assert body["truncate"] is False


def test_argument_files_and_stdin_in_this_order(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("first file\n")
    two.write_text("second file\n")

    ask("argument", "-f", str(one), "-f", str(two), stdin=b"from a pipe")

    assert sent(fake)["prompt"] == "argument\n\nfirst file\n\n\nsecond file\n\n\nfrom a pipe"


def test_stdin_alone_is_the_prompt(fake: FakeOllama, ask: Ask) -> None:
    ask(stdin=b"from a pipe\n")

    assert sent(fake)["prompt"] == "from a pipe\n"


def test_empty_parts_leave_no_trace(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    ask("-f", str(tmp_path / "empty"), stdin=b"text")

    assert sent(fake)["prompt"] == "text"


@pytest.mark.parametrize(
    "text", ["größer als 日本語 🙂", 'quotes " and \\ and \0 and \x7f', "é" * 40_000, "x" * 65_535 + "é🙂"]
)
def test_text_arrives_as_it_was_given(fake: FakeOllama, ask: Ask, text: str) -> None:
    """The longer ones cross the pieces in which stdin is read, in the middle of a character."""
    ask(stdin=text.encode())

    assert sent(fake)["prompt"] == text


def test_nothing_to_ask(fake: FakeOllama, ask: Ask) -> None:
    for asked in (ask(), ask(""), ask(stdin=b"")):
        assert asked.code == 2
        assert asked.err.startswith("error: there is nothing to ask")
    assert not fake.requests


def test_a_file_that_is_not_there(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    asked = ask("hello", "-f", str(tmp_path / "absent.txt"))

    assert (asked.code, asked.out) == (4, "")
    assert f"no such file: {tmp_path}/absent.txt" in asked.err


def test_a_folder_is_no_file(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    asked = ask("hello", "-f", str(tmp_path))

    assert asked.code == 2
    assert f"cannot read {tmp_path}: Is a directory" in asked.err


@pytest.mark.parametrize("data", [b"\xff\xfe", b"ok \xc3", b"x" * 70_000 + b"\xe9t\xe9"])
def test_what_is_not_utf8_is_refused(fake: FakeOllama, ask: Ask, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes(data)

    piped, read = ask(stdin=data), ask("-f", str(file))

    assert (piped.code, read.code) == (2, 2)
    assert "stdin is not UTF-8 text" in piped.err
    assert f"{file} is not UTF-8 text" in read.err


@pytest.mark.parametrize("arguments", [["\udcff"], ["hello", "-s", "\udcff"]])
def test_an_argument_that_is_not_utf8_is_refused(fake: FakeOllama, ask: Ask, arguments: list[str]) -> None:
    asked = ask(*arguments)

    assert asked.code == 2
    assert "is not UTF-8 text" in asked.err
    assert not fake.requests


def test_a_plain_name_stands_for_the_pinned_weights(fake: FakeOllama, ask: Ask) -> None:
    ask("hello", "-m", "small")

    assert sent(fake)["model"] == ALIAS


def test_a_name_that_nothing_knows(fake: FakeOllama, ask: Ask) -> None:
    asked = ask("hello", "-m", "absent:1b", "--json")

    assert (asked.code, asked.out) == (4, "")
    assert asked.error == {
        "code": "model_not_found",
        "message": "model 'absent:1b' not found",
        "hint": "llmctl list",
    }


@pytest.mark.parametrize("wrong", [["--max-tokens", "0"], ["--temperature", "-1"], ["--timeout", "0"], ["--seed", "x"]])
def test_options_out_of_range(fake: FakeOllama, ask: Ask, wrong: list[str]) -> None:
    asked = ask("hello", *wrong)

    assert asked.code == 2
    assert f"'{wrong[0]}'" in asked.err
    assert not fake.requests


def test_without_an_up_it_says_what_to_do(ask: Ask) -> None:
    asked = ask("hello")

    assert (asked.code, asked.out, asked.err) == (3, "", "error: no server is up\nhint: llmctl up\n")


def test_a_server_that_went_down(fake: FakeOllama, ask: Ask, home: Path) -> None:
    state = home / ".local/state/llmctl/state.json"
    recorded = json.loads(state.read_text())
    state.write_text(json.dumps(recorded | {"base_url": "http://127.0.0.1:1"}))

    asked = ask("hello")

    assert (asked.code, asked.out) == (3, "")
    assert asked.err == "error: no server at http://127.0.0.1:1\nhint: llmctl up\n"
