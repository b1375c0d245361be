"""What llmctl relies on in an engine's API, asked of the fake and of the real server alike."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest

from llmctl.client import Chunk, Client
from llmctl.errors import EngineError, NotFound, PromptTooLong
from tests.contract.conftest import Engine
from tests.parts.ollama import STARTER

ALIAS = "llmctl/starter:0123456789ab"
# One word is one token or more in every tokenizer.
TOO_LONG = "one " * 2400


def ask(client: Client, prompt: str, *, model: str = STARTER, predict: int = 4, **fields: object) -> list[Chunk]:
    options = {"num_predict": predict, "temperature": 0, "seed": 1}
    return list(client.generate({"model": model, "options": options, **fields}, [prompt]))


def unload(client: Client) -> None:
    """The answer comes before the runner is gone; until then /api/ps may still show it."""
    client.unload(STARTER)
    deadline = time.monotonic() + 60
    while client.ps():
        assert time.monotonic() < deadline, "the model stays loaded"
        time.sleep(0.02)


def test_version_has_three_numbers(engine_api: Engine) -> None:
    assert len(engine_api.client.version().split(".")) == 3


def test_tags_give_the_whole_digest_without_prefix(engine_api: Engine) -> None:
    [model] = engine_api.client.tags()
    assert model.name == STARTER
    assert len(model.digest) == 64
    assert int(model.digest, 16)
    assert model.quantization == "Q4_K_M"
    assert model.size_bytes > 0


def test_the_cloud_is_off_where_the_server_was_told_so(engine_api: Engine) -> None:
    assert engine_api.client.cloud_disabled() is True


def test_show_names_the_weights_and_their_quantization(engine_api: Engine) -> None:
    shown = engine_api.client.show(STARTER)
    assert shown["model_info"]["general.file_type"] == 15
    assert "/blobs/sha256-" in shown["modelfile"]


def test_an_answer_streams_and_its_last_line_has_the_figures(engine_api: Engine) -> None:
    chunks = ask(engine_api.client, "The capital of France is", predict=4)
    *head, last = chunks
    assert not any(chunk.done for chunk in head)
    assert all(chunk.usage is None for chunk in head)
    assert "".join(chunk.text for chunk in chunks)
    assert last.done
    assert last.usage is not None
    assert last.usage.prompt_tokens > 4
    assert last.usage.total_seconds > 0


def test_reaching_the_limit_that_was_asked_for_is_length(engine_api: Engine) -> None:
    last = ask(engine_api.client, "Count: one two three four five", predict=2)[-1]
    assert last.done_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 2


def test_a_prompt_may_come_in_pieces_with_any_characters(engine_api: Engine) -> None:
    pieces = ['quote " backslash \\ newline \n', "tab \t null-free ☃ \U0001f600", " end"]
    whole = ask(engine_api.client, "".join(pieces), predict=1)[-1].usage
    parts = list(engine_api.client.generate({"model": STARTER, "options": {"num_predict": 1}}, pieces))[-1].usage
    assert whole is not None
    assert parts is not None
    assert whole.prompt_tokens == parts.prompt_tokens


def test_load_shows_in_ps_by_digest_and_unload_clears_it(engine_api: Engine) -> None:
    client = engine_api.client
    unload(client)
    client.load(STARTER)
    [loaded] = client.ps()
    assert loaded.digest == client.tags()[0].digest
    assert loaded.context_length == 2048
    # Without a GPU both are zero: "all of it is on the GPU" must not be read from their being equal.
    assert (loaded.size_bytes, loaded.size_vram_bytes) == (0, 0)
    unload(client)


def test_a_load_leaves_out_every_figure_that_is_zero(engine_api: Engine) -> None:
    body = json.dumps({"model": STARTER, "stream": False}).encode()
    status, answer = engine_api.raw("POST", "/api/generate", body)
    assert status == 200
    answered = json.loads(answer)
    assert answered["done_reason"] == "load"
    assert "eval_count" not in answered
    assert "prompt_eval_count" not in answered


def test_ps_shows_nothing_or_the_whole_model_while_it_loads(engine_api: Engine) -> None:
    client = engine_api.client
    client.unload(STARTER)
    loading = threading.Thread(target=client.load, args=(STARTER,))
    loading.start()
    seen = []
    while loading.is_alive():
        seen += client.ps()
    loading.join()
    assert all(model.digest == client.tags()[0].digest and model.context_length for model in seen)
    assert len(client.ps()) == 1


@pytest.mark.parametrize("verb", ["show", "load", "delete", "copy", "ask"])
def test_an_unknown_model_is_not_found(engine_api: Engine, verb: str) -> None:
    client = engine_api.client
    calls = {
        "show": lambda: client.show("nosuch"),
        "load": lambda: client.load("nosuch"),
        "delete": lambda: client.delete("nosuch"),
        "copy": lambda: client.copy("nosuch", ALIAS),
        "ask": lambda: ask(client, "hello", model="nosuch"),
    }
    with pytest.raises(NotFound, match="nosuch"):
        calls[verb]()


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(engine_api: Engine) -> None:
    with pytest.raises(PromptTooLong) as refused:
        ask(engine_api.client, TOO_LONG, truncate=False)
    assert "2048" in refused.value.message
    assert "240" in refused.value.message


def test_without_truncate_false_it_is_cut_and_only_the_count_tells(engine_api: Engine) -> None:
    last = ask(engine_api.client, TOO_LONG, predict=1)[-1]
    assert last.usage is not None
    assert 0 < last.usage.prompt_tokens < 2048


def test_a_copy_has_the_same_digest_and_shares_the_runner(engine_api: Engine) -> None:
    client = engine_api.client
    client.load(STARTER)
    client.copy(STARTER, ALIAS)
    assert len({model.digest for model in client.tags()}) == 1
    ask(client, "hello", model=ALIAS, predict=1)
    [loaded] = client.ps()
    assert loaded.name == STARTER
    client.delete(ALIAS)
    assert [model.name for model in client.tags()] == [STARTER]


def test_another_template_is_another_manifest_of_the_same_weights(engine_api: Engine) -> None:
    client = engine_api.client
    events = list(client.create(ALIAS, from_=STARTER, template="Q: {{ .Prompt }} A:"))
    assert events[-1].status == "success"
    digests = {model.name: model.digest for model in client.tags()}
    assert digests[ALIAS] != digests[STARTER]
    weights = {line for name in digests for line in client.show(name)["modelfile"].splitlines() if "/blobs/" in line}
    assert len({line.partition("sha256-")[2] for line in weights if line.startswith("FROM")}) == 1


def test_blobs_are_checked_on_the_way_in(engine_api: Engine, tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"a small blob of this test" + tmp_path.name.encode())
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    wrong = f"sha256:{'0' * 64}"
    client = engine_api.client
    assert not client.has_blob(digest)
    client.put_blob(digest, file)
    assert client.has_blob(digest)
    with pytest.raises(EngineError, match="digest mismatch"):
        client.put_blob(wrong, file)
    assert not client.has_blob(wrong)


def test_a_pull_that_fails_says_so_under_200(engine_api: Engine) -> None:
    name = "127.0.0.1:1/library/nosuch:latest"
    status, body = engine_api.raw("POST", "/api/pull", json.dumps({"model": name, "insecure": True}).encode())
    assert status == 200
    assert "error" in json.loads(body.splitlines()[-1])
    with pytest.raises(EngineError, match="pull model manifest"):
        list(engine_api.client.pull(name, insecure=True))


def test_thinking_of_a_model_that_does_not_is_an_error(engine_api: Engine) -> None:
    with pytest.raises(EngineError, match="does not support thinking"):
        ask(engine_api.client, "hello", think=True)


def test_a_foreign_host_header_is_refused_without_a_word(engine_api: Engine) -> None:
    assert engine_api.raw("GET", "/api/version", Host="example.com") == (403, b"")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/api/generate", b"{}", 405),
        ("POST", "/api/generate", b"", 400),
        ("POST", "/api/generate", b'{"model": "starter", "keep_alive": "-1"}', 400),
        ("GET", "/api/nosuch", None, 404),
    ],
    ids=["method", "no-body", "keep-alive-text", "path"],
)
def test_wrong_requests(engine_api: Engine, method: str, path: str, body: bytes | None, status: int) -> None:
    assert engine_api.raw(method, path, body)[0] == status
