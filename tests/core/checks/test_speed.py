"""The speed checks on figures: what is slow, what is not known, and which share of it has which cause."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.checks import speed
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.gpu import Card, GpuFacts
from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.checks.facts.server import ServerFacts, ServerProcess
from llmctl.core.checks.facts.speed import ModelSpeed, SpeedFacts
from llmctl.core.checks.speed_shares import is_level
from llmctl.core.memory.token_time import Span, TokenTime
from tests.doctor.proving import parses

GIB = 1 << 30
SERVER = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="llmctl", pid=7)
MODEL = ModelSpeed("m", "gpu", 8192, 5, 40.0, expected_least=30.0, expected_most=50.0, basis="roofline")
# Of 1,024 tokens the first comes after a second at most.
PROMPTED = replace(
    MODEL,
    prompt_seconds=Span(0.0002, 0.96 / 1024),
    time=TokenTime(Span(0.01, 0.02), Span(0.0, 0.0), Span(0.01, 0.02)),
)


def facts(*models: ModelSpeed, **areas: Any) -> Facts:
    usual: dict[str, object] = {
        "speed": SpeedFacts(models),
        "server": SERVER,
        "gpu": GpuFacts("fine", cards=(Card(0, "RTX", 24 * GIB, GIB),)),
        "log": LogFacts("server.log", 1, True),
    }
    return Facts({**usual, **areas})


def outcomes(found: Facts) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in examine(speed.CHECKS, found)}


def of_slow(model: ModelSpeed, **areas: Any) -> Outcome:
    return outcomes(facts(model, **areas))["speed.slow"]


@pytest.mark.parametrize(
    ("place", "seen", "least", "state"),
    [
        ("gpu", 40.0, 30.0, "ok"),
        ("gpu", 16.0, 30.0, "ok"),
        ("gpu", 14.0, 30.0, "found"),
        # A tiny model is held up by what the roofline leaves out.
        ("gpu", 300.0, 2300.0, "ok"),
        ("gpu", 40.0, 2300.0, "found"),
        ("partial", 1.0, 3.5, "ok"),
        ("partial", 0.3, 3.5, "found"),
        ("gpu", 40.0, None, "unknown"),
        ("gpu", None, 30.0, "unknown"),
        ("gpu", 0.0, 30.0, "unknown"),
    ],
)
def test_what_is_slow(place: str, seen: float | None, least: float | None, state: str) -> None:
    assert of_slow(replace(MODEL, place=place, tokens_per_second=seen, expected_least=least)).state == state


def test_without_an_answer_the_probe_counts() -> None:
    model = replace(MODEL, answers=0, tokens_per_second=None)
    probe = DeepFacts(tokens_per_second=2.0, asked="m")
    (finding,) = of_slow(model, deep=probe).findings
    assert finding.observed.startswith("2.0 tokens/s (one probe)")
    # What it says of one model says nothing of another.
    assert of_slow(replace(model, name="other"), deep=probe).state == "unknown"


def test_what_is_not_known_has_its_reason() -> None:
    model = replace(MODEL, expected_least=None, unknown="RPC0 is no card of NVIDIA's", first_tokens=((1024, 9.0),))
    found = outcomes(facts(model))
    assert found["speed.slow"].why == found["speed.first-token"].why == "RPC0 is no card of NVIDIA's"


def test_what_is_known_of_one_model_is_not_known_of_another() -> None:
    blind = replace(PROMPTED, name="blind", expected_least=None, prompt_seconds=None, unknown="RPC0 is no card")
    told, other = (replace(one, first_tokens=((1024, 0.5),)) for one in (PROMPTED, blind))
    for models in ((told, other), (other, told)):
        found = outcomes(facts(*models))
        for check in ("speed.slow", "speed.first-token"):
            assert (found[check].state, found[check].why) == ("unknown", "blind: RPC0 is no card")
    late, slow = replace(told, first_tokens=((1024, 9.0),)), replace(told, tokens_per_second=2.0)
    assert outcomes(facts(other, late))["speed.first-token"].state == "found"
    assert outcomes(facts(other, slow))["speed.slow"].state == "found"


def test_a_speed_of_nothing_is_none() -> None:
    model = replace(MODEL, answers=0, tokens_per_second=None)
    assert of_slow(model, deep=DeepFacts(tokens_per_second=0.0, asked="m")).state == "unknown"
    still = replace(MODEL, tokens_per_second=0.0, best_tokens_per_second=90.0)
    assert outcomes(facts(still))["speed.slower-than-before"].state == "ok"


@pytest.mark.parametrize(
    ("answers", "now", "best", "state"),
    [(5, 30.0, 90.0, "found"), (5, 60.0, 90.0, "ok"), (4, 30.0, 90.0, "ok"), (5, 30.0, None, "ok")],
)
def test_slower_than_before(answers: int, now: float, best: float | None, state: str) -> None:
    model = replace(MODEL, answers=answers, tokens_per_second=now, best_tokens_per_second=best)
    assert outcomes(facts(model))["speed.slower-than-before"].state == state


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        # Of 25 ms a token the context takes 12 at least, so without it they would be 13.
        ({"used_tokens": 8000, "time": TokenTime(Span(0.002, 0.003), Span(0, 0), Span(0.012, 0.02))}, "ok"),
        ({"used_tokens": 8000, "time": TokenTime(Span(0.002, 0.003), Span(0, 0), Span(0.001, 0.02))}, "found"),
        ({"used_tokens": None, "time": TokenTime(Span(0.002, 0.003), Span(0, 0), Span(0.012, 0.02))}, "found"),
        ({"used_tokens": 8000, "place": "cpu", "cache_share": 0.5}, "ok"),
        ({"used_tokens": 8000, "place": "cpu", "cache_share": 0.05}, "found"),
        # Nothing but the cache is read.
        ({"used_tokens": 8000, "place": "cpu", "cache_share": 1.0}, "ok"),
        ({"used_tokens": 8000, "time": TokenTime(Span(0, 0), Span(0, 0), Span(0.03, 0.04))}, "ok"),
    ],
)
def test_longer_contexts_are_slower_and_no_fault(changes: dict[str, Any], state: str) -> None:
    model = replace(MODEL, tokens_per_second=40.0, best_tokens_per_second=100.0, **changes)
    assert outcomes(facts(model))["speed.slower-than-before"].state == state


@pytest.mark.parametrize(
    ("seconds", "changes", "state"),
    [
        (0.5, {}, "ok"),
        (5.9, {}, "ok"),
        (6.5, {}, "found"),
        (6.5, {"prompt_seconds": None}, "unknown"),
        # 12 GB in host memory, copied twice at 12 GB/s: 2 s more. Of experts a batch may ask for all, a token for few.
        (13.9, {"place": "partial", "host_weights_bytes": 12_000_000_000, "host_read_bytes": 600_000_000}, "ok"),
        (14.5, {"place": "partial", "host_weights_bytes": 12_000_000_000, "host_read_bytes": 600_000_000}, "found"),
        (13.9, {"place": "partial", "host_weights_bytes": 6_000_000_000, "batch": 256}, "ok"),
        (13.9, {"place": "partial", "host_weights_bytes": 12_000_000_000, "batch": 1024}, "found"),
    ],
)
def test_a_late_first_token(seconds: float, changes: dict[str, Any], state: str) -> None:
    model = replace(PROMPTED, first_tokens=((1024, seconds),), **changes)
    assert outcomes(facts(model))["speed.first-token"].state == state


def test_a_late_first_token_is_measured_anew_with_a_command_as_it_stands() -> None:
    model = replace(PROMPTED, name="a b", first_tokens=((1024, 9.5),))
    (finding,) = outcomes(facts(model))["speed.first-token"].findings
    numbers, _, ask = finding.remedy.commands[-1].partition(" | ")
    assert numbers == "seq 1 500"
    parses(ask)
    assert not {"FILE", "COMMAND"} & set(shlex.split(finding.remedy.commands[-1]))


@pytest.mark.parametrize(
    ("value", "on"),
    [
        ("1", True),
        ("true", True),
        ("2", True),
        ("'1'", True),
        ("+1", True),
        # Less than without it: WARN.
        ("-1", False),
        ("00", False),
        ("²", False),
        ("0", False),
        ("false", False),
        ("on", False),
        ("", False),
    ],
)
def test_what_the_engine_takes_for_a_debug_level(value: str, on: bool) -> None:
    assert is_level(value) == on


@pytest.mark.parametrize(
    ("environ", "said", "observed"),
    [
        ({"OLLAMA_DEBUG": "1"}, "DEBUG", "OLLAMA_DEBUG=1 in the server's environment"),
        ({}, "DEBUG-4", "the server's log says OLLAMA_DEBUG:DEBUG-4, as it started"),
    ],
)
def test_what_was_read_of_debug_logging(environ: dict[str, str], said: str, observed: str) -> None:
    process = ServerProcess(7, "me", "/opt/ollama", "S", None, None, environ, None)
    log = LogFacts("server.log", 1, True, config={"OLLAMA_DEBUG": said}, debug=True)
    found = outcomes(facts(server=replace(SERVER, processes=(process,)), log=log))["speed.debug-logging"]
    assert [finding.observed for finding in found.findings] == [observed]
