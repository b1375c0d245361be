"""What comes back: whole answers, cut ones, failures, and how each is said."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.ask.conftest import Ask
from tests.fake_ollama import FakeOllama, Reply

DOCUMENT = [
    "schema",
    "model",
    "response",
    "thinking",
    "done_reason",
    "cut",
    "context_length",
    "prompt_tokens",
    "completion_tokens",
    "ttft_seconds",
    "load_seconds",
    "prompt_seconds",
    "completion_seconds",
    "total_seconds",
]


def token(text: str) -> dict[str, Any]:
    return {"model": "small", "response": text, "done": False}


def last(reason: str = "stop", **figures: int) -> dict[str, Any]:
    usual = {"prompt_eval_count": 5, "eval_count": 2, "eval_duration": 1_000_000_000, "total_duration": 2_000_000_000}
    return {"model": "small", "response": "", "done": True, "done_reason": reason, **usual, **figures}


def test_an_answer_ends_with_one_newline(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Par"), token("is."), last()]))
    assert ask("hello").out == "Paris.\n"

    fake.script("/api/generate", Reply(lines=[token("Paris.\n"), last()]))
    assert ask("hello").out == "Paris.\n"


def test_the_document(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Par"), token("is."), last(prompt_eval_duration=500_000_000)]))

    asked = ask("hello", "--json")

    assert (asked.code, asked.err) == (0, "")
    assert list(asked.document) == DOCUMENT
    expected = {"schema": 1, "response": "Paris.", "cut": None, "done_reason": "stop", "total_seconds": 2.0}
    expected |= {"prompt_tokens": 5, "completion_tokens": 2, "prompt_seconds": 0.5, "context_length": None}
    assert asked.document.items() >= expected.items()


def test_the_document_of_a_loaded_model_has_its_context(fake: FakeOllama, ask: Ask) -> None:
    assert ask("hello", "--json").document["context_length"] == 2048


def test_statistics_go_to_stderr(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Paris."), last()]))

    asked = ask("hello", "--stats")

    assert asked.out == "Paris.\n"
    assert asked.err.startswith("5 prompt tokens, 2 tokens, 2.0 tokens/s, first token after ")
    assert "2.00 s in all" in asked.err


def test_thinking_is_kept_apart(fake: FakeOllama, ask: Ask) -> None:
    lines = [{"model": "small", "response": "", "thinking": "hm", "done": False}, token("Paris."), last()]
    fake.script("/api/generate", Reply(lines=lines), Reply(lines=lines))

    assert ask("hello").out == "Paris.\n"
    assert ask("hello", "--json").document["thinking"] == "hm"


def test_a_prompt_that_is_too_long_names_both_numbers(fake: FakeOllama, ask: Ask) -> None:
    asked = ask(stdin=b"word " * 3000)

    assert (asked.code, asked.out) == (6, "")
    assert asked.err == (
        "error: the prompt is 3001 tokens long and the context holds 2048\n"
        "hint: shorten it by 954 tokens or more, or raise server.context in the profile and run: llmctl up\n"
    )


def test_a_prompt_that_is_too_long_for_a_script(fake: FakeOllama, ask: Ask) -> None:
    asked = ask("--json", stdin=b"word " * 3000)

    assert (asked.code, asked.out, asked.error["code"]) == (6, "", "prompt_too_long")
    assert "3001" in asked.error["message"]
    assert "2048" in asked.error["message"]


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_without_its_end_keeps_what_arrived(fake: FakeOllama, ask: Ask, cut: bool) -> None:
    fake.script("/api/generate", Reply(lines=[token("Half an"), token(" answer")], cut=cut))

    asked = ask("hello")

    assert (asked.code, asked.out) == (1, "Half an answer\n")
    assert asked.err.startswith("error: the answer stopped before its end")


def test_an_error_line_under_200_keeps_what_arrived(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Half"), {"error": "an error was encountered"}]))

    asked = ask("hello")

    assert (asked.code, asked.out) == (1, "Half\n")
    assert asked.err == "error: an error was encountered\nhint: llmctl logs\n"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(lines=[token("Half")]), "stream_ended"),
        (Reply(lines=[token("Half"), {"error": "an error was encountered"}]), "engine_error"),
        (Reply(503, {"error": "server busy"}), "engine_error"),
    ],
)
def test_a_failure_for_a_script_is_one_object_on_stderr(fake: FakeOllama, ask: Ask, reply: Reply, code: str) -> None:
    fake.script("/api/generate", reply)

    asked = ask("hello", "--json")

    assert (asked.code, asked.out) == (1, "")
    assert list(asked.error) == ["code", "message", "hint"]
    assert asked.error["code"] == code


def test_the_engines_own_limit_is_a_cut(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Long"), last("length", eval_count=1800)]))

    asked = ask("hello")

    assert (asked.code, asked.out) == (6, "Long\n")
    assert asked.err.startswith("error: the answer was cut: the engine stopped at its own limit (1805 tokens")


def test_the_limit_that_was_asked_for_is_none(fake: FakeOllama, ask: Ask) -> None:
    assert ask("hello", "--max-tokens", "3").code == 0


def test_a_limit_that_was_not_reached_is_a_cut(fake: FakeOllama, ask: Ask) -> None:
    """The context ended the answer before --max-tokens did."""
    fake.script("/api/generate", Reply(lines=[token("Long"), last("length", eval_count=10)]))

    assert ask("hello", "--max-tokens", "500").code == 6


def test_a_context_shift_is_said(fake: FakeOllama, ask: Ask) -> None:
    """Nothing in the engine's answer says it: only the counts do."""
    ask("this loads it")
    fake.script("/api/generate", Reply(lines=[token("Long"), last(prompt_eval_count=2000, eval_count=60)]))

    asked = ask("hello")

    assert (asked.code, asked.out) == (6, "Long\n")
    assert "the oldest tokens were dropped (2060 tokens, context 2048)" in asked.err


def test_a_shift_is_seen_when_the_runner_has_another_name(fake: FakeOllama, ask: Ask) -> None:
    """/api/ps shows the name that loaded first; another model with another context is loaded too."""
    model = next(iter(fake.models.values()))
    fake.models["small:latest"] = model
    fake.loaded[model.weights] = "small:latest"
    fake.script("/api/generate", Reply(lines=[token("Long"), last(prompt_eval_count=2000, eval_count=60)]))

    assert ask("hello").code == 6


def test_an_answer_that_was_cut_is_a_document_and_an_error(fake: FakeOllama, ask: Ask) -> None:
    fake.script("/api/generate", Reply(lines=[token("Long"), last("length", eval_count=1800)]))

    asked = ask("hello", "--json")

    assert asked.code == 6
    assert (asked.document["cut"], asked.document["response"]) == ("length", "Long")
    assert asked.error["code"] == "answer_cut"


def test_the_time_is_up_between_tokens_or_in_silence(fake: FakeOllama, ask: Ask) -> None:
    release = threading.Event()
    fake.script("/api/generate", Reply(lines=[token("Half")], hold=release))
    try:
        asked = ask("hello", "--timeout", "0.2")
    finally:
        release.set()

    assert (asked.code, asked.out) == (1, "Half\n")
    assert asked.err == "error: the answer was not finished after 0.2 s\n"


SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA)
    return path


def test_an_answer_that_fits_its_schema(fake: FakeOllama, ask: Ask, schema: Path) -> None:
    fake.script("/api/generate", Reply(lines=[token('{"n"'), token(": 3}"), last()]))

    asked = ask("hello", "--schema", str(schema))

    assert (asked.code, asked.out) == (0, '{"n": 3}\n')


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"n": "three"}', "at n: 'three' is not of type 'integer'"),
        ("{}", "at the whole answer: 'n' is a required property"),
        ('{"n": 3', "the answer is not JSON"),
        ('{"n": NaN}', "the answer is not JSON: NaN is no number in JSON"),
        ("", "the answer is not JSON"),
    ],
)
def test_an_answer_that_does_not(fake: FakeOllama, ask: Ask, schema: Path, answer: str, said: str) -> None:
    reply = Reply(lines=[token(answer), last()])
    fake.script("/api/generate", reply, reply)

    for_people = ask("hello", "--schema", str(schema))
    for_scripts = ask("hello", "--schema", str(schema), "--json")

    assert (for_people.code, for_people.out) == (5, "")
    assert said in for_people.err
    assert for_scripts.code == 5
    assert for_scripts.document["response"] == answer
    assert for_scripts.error["code"] == "schema_mismatch"


def test_an_answer_that_was_cut_is_not_judged_by_its_schema(fake: FakeOllama, ask: Ask, schema: Path) -> None:
    fake.script("/api/generate", Reply(lines=[token('{"n": '), last("length", eval_count=1800)]))

    asked = ask("hello", "--schema", str(schema))

    assert (asked.code, asked.out) == (6, '{"n": \n')


@pytest.mark.parametrize("content", ["", "not json", "[]", "3", "true", '{"type": "nonsense"}', "[" * 100_000, "\0"])
def test_what_is_no_schema(fake: FakeOllama, ask: Ask, tmp_path: Path, content: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(content)

    asked = ask("hello", "--schema", str(path))

    assert asked.code == 2
    assert f"{path} is not a JSON Schema" in asked.err
    assert not fake.requests


def test_a_schema_that_is_not_there(fake: FakeOllama, ask: Ask, tmp_path: Path) -> None:
    assert ask("hello", "--schema", str(tmp_path / "absent.json")).code == 4
    assert ask("hello", "--schema", str(tmp_path)).code == 2


@pytest.mark.parametrize("target", ["#", "http://127.0.0.1:1/schema.json", "#/$defs/absent"])
def test_a_schema_that_cannot_be_followed(fake: FakeOllama, ask: Ask, tmp_path: Path, target: str) -> None:
    """Nothing is fetched for it, and it does not recurse for ever."""
    path = tmp_path / "schema.json"
    path.write_text(f'{{"$ref": "{target}"}}')
    fake.script("/api/generate", Reply(lines=[token("{}"), last()]))

    asked = ask("hello", "--schema", str(path))

    assert asked.code == 2
    assert "the schema cannot be applied" in asked.err
