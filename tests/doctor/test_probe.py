"""The probe of --deep asks only a model that the request does not load anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl.client.types import Chunk, Usage
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.gpu import GpuFacts
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.server import ServerFacts
from llmctl.core.placement import Proof, Witnesses
from llmctl.workflows.gather import deep

GIB = 1 << 30
WEIGHTS = "sha256:" + "ab" * 32
ANSWER = Usage(4, 32, 1.0, 0.0, 0.1, 0.5)
LOADED = LoadedFacts("m:pinned", "d", 8192, GIB, GIB, None, WEIGHTS)
THERE = ResidentFacts(
    name="m",
    alias="m:pinned",
    digests=frozenset({"d"}),
    weights_digest=WEIGHTS,
    context=8192,
    loaded=LOADED,
    proof=Proof("proved", "gpu"),
    witnesses=Witnesses(None),
    predicted=None,
    runner_pid=None,
    runner_argv=(),
    alias_state="there",
)


class Asked:
    """Answers with the given figures, and keeps what it was asked."""

    def __init__(self, usage: Usage = ANSWER) -> None:
        self.usage = usage
        self.requests: list[dict[str, Any]] = []

    def generate(self, request: dict[str, Any], _: Iterable[str], *, silence_seconds: float) -> Iterator[Chunk]:
        assert silence_seconds
        self.requests.append(request)
        yield Chunk("4")
        yield Chunk(done=True, usage=self.usage)


def probe(client: Asked, *models: ResidentFacts) -> DeepFacts:
    server = ServerFacts("http://127.0.0.1:11434", "profile", "answers")
    given: Any = SimpleNamespace(
        of_models=ModelsFacts("full", models, ()),
        of_server=server,
        of_gpu=GpuFacts("absent"),
        client=lambda _: client,
    )
    return deep.gather(given)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, True),
        ({"alias_state": None}, True),
        ({"loaded": None}, False),
        # Each of these makes Ollama load it, and with another context than somebody uses there now.
        ({"loaded": replace(LOADED, context=2048)}, False),
        ({"loaded": replace(LOADED, context=None)}, False),
        ({"witnesses": Witnesses(None, runner_ended=True)}, False),
        ({"alias_state": "gone"}, False),
        ({"alias_state": "other"}, False),
    ],
)
def test_only_a_model_that_is_there_as_it_should_be(changes: dict[str, Any], asked: bool) -> None:
    client = Asked()
    found = probe(client, replace(THERE, **changes))
    assert bool(client.requests) == asked
    assert found.asked == ("m" if asked else None)
    assert found.tokens_per_second == (64.0 if asked else None)


def test_the_next_model_is_asked_where_the_first_would_be_loaded_anew() -> None:
    client = Asked()
    assert probe(client, replace(THERE, loaded=None), replace(THERE, name="b", alias="b:pinned")).asked == "b"
    assert [request["model"] for request in client.requests] == ["b:pinned"]


def test_the_request_changes_nothing_of_how_it_is_loaded() -> None:
    client = Asked()
    probe(client, THERE)
    (request,) = client.requests
    assert request.keys() == {"model", "raw", "options"}
    assert request["options"].keys() == {"num_predict"}


@pytest.mark.parametrize("usage", [replace(ANSWER, completion_tokens=0), replace(ANSWER, completion_seconds=0.0)])
def test_an_answer_of_nothing_is_no_speed(usage: Usage) -> None:
    found = probe(Asked(usage), THERE)
    assert found.answer_seconds is not None
    assert found.tokens_per_second is None
