"""The models' checks on facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.checks import model
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.log import FailedLoad, LogFacts, LogLine
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.server import Runner, ServerFacts
from llmctl.core.placement import Buffer, Place, Proof, Require, Verdict, Witnesses

MIB, GIB = 1 << 20, 1 << 30
NOW = 10_000.0
MINE, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
SERVER = ServerFacts("http://127.0.0.1:11434", "profile", "answers", version="0.34.0", owner="llmctl", pid=7)
LOADED = LoadedFacts("llmctl/m:1", "d", 2048, 4 * GIB, 4 * GIB, None, MINE)
THERE = ResidentFacts(
    *("m", "llmctl/m:1", frozenset({"d"}), MINE, 2048, LOADED),
    *(Proof("proved", "gpu"), Witnesses(None), None, 8, ("llama-server",)),
    served="m:latest",
    alias_state="there",
)
GONE = replace(THERE, loaded=None, proof=None, witnesses=None, runner_pid=None)


def facts(one: ResidentFacts, *loaded: LoadedFacts, require: Require = "full", **areas: Any) -> Facts:
    return Facts({"server": SERVER, "models": ModelsFacts(require, (one,), loaded), **areas})


def outcomes(found: Facts) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in examine(model.CHECKS, found)}


def ids(found: Facts) -> list[str]:
    return [name for name, outcome in outcomes(found).items() if outcome.state == "found"]


def placed(place: Place, verdict: Verdict = "refuted") -> ResidentFacts:
    return replace(THERE, proof=Proof(verdict, place, ("nothing tells",)))


def test_a_model_that_is_where_it_must_be() -> None:
    assert ids(facts(THERE, LOADED)) == []


def test_a_model_that_is_not_there() -> None:
    rival = replace(LOADED, name="rival:latest", digest="e", weights_digest=OTHER, size_vram_bytes=3 * GIB)
    found = outcomes(facts(GONE, rival))["model.not-resident"].findings[0]
    assert found.observed == "rival:latest (context 2,048, 3.0 GiB on GPUs) in its place"
    found = outcomes(facts(replace(GONE, alias_state="gone")))["model.not-resident"].findings[0]
    assert found.observed == "no model is loaded"
    assert found.evidence == ("the server has no model llmctl/m:1",)


def test_a_model_whose_runner_has_ended() -> None:
    ended = replace(THERE, witnesses=Witnesses(None, runner_ended=True), proof=Proof("refuted", "unknown"))
    assert ids(facts(ended, LOADED)) == ["model.not-resident"]


def test_a_model_that_is_being_loaded_is_not_missed() -> None:
    runner = Runner(8, "ann", 7, (), "R", None, None, "loading", 3.0, MINE)
    loading = facts(GONE, server=replace(SERVER, runners=(runner,)))
    assert outcomes(loading)["model.not-resident"].state == "unknown"
    assert ids(facts(GONE, server=replace(SERVER, runners=(replace(runner, parent=None),)))) == ["model.not-resident"]


def test_a_model_that_nobody_pinned_yet_is_not_missed() -> None:
    assert ids(facts(replace(GONE, alias=None, weights_digest=None, digests=frozenset()))) == []


def test_a_server_that_does_not_tell_leaves_everything_unknown() -> None:
    silent = Facts({"server": SERVER, "models": ModelsFacts("full", (GONE,), (), asked=False)})
    said = {name: outcome.state for name, outcome in outcomes(silent).items()}
    assert said["model.not-resident"] == said["model.on-cpu"] == said["model.wrong-context"] == "unknown"
    assert "found" not in said.values()


@pytest.mark.parametrize(
    ("one", "require", "expected"),
    [
        (placed("cpu"), "full", ["model.on-cpu"]),
        (placed("cpu"), "partial", ["model.on-cpu"]),
        (placed("cpu"), "none", []),
        (placed("partial"), "full", ["model.partial"]),
        (placed("partial"), "partial", []),
        (placed("unknown", "unverified"), "full", ["model.unproved"]),
        (placed("unknown", "proved"), "none", []),
    ],
)
def test_where_a_model_must_lie(one: ResidentFacts, require: Require, expected: list[str]) -> None:
    assert ids(facts(one, LOADED, require=require)) == expected


def test_the_shares_of_a_model_that_lies_in_two_places() -> None:
    buffers = (Buffer("CUDA0", "model", 900 * MIB), Buffer("CUDA0", "KV", 100 * MIB), Buffer("CPU", "model", 3 * GIB))
    one = replace(placed("partial"), loaded=replace(LOADED, size_vram_bytes=GIB), witnesses=Witnesses(None, buffers))
    found = outcomes(facts(one, LOADED))["model.partial"].findings[0]
    assert found.observed == "1.0 GiB of 4.0 GiB on GPUs (25 %), the rest in host memory"
    assert found.evidence == ("buffers of pid 8: CUDA0 1,000 MiB, CPU 3.0 GiB",)


@pytest.mark.parametrize(
    ("name", "weights", "wrong"),
    [
        ("m:latest", OTHER, True),
        ("M", OTHER, True),
        ("llmctl/m:1", OTHER, True),
        ("m:latest", MINE, False),
        ("m:latest", None, False),
        ("m:8b", OTHER, False),
    ],
)
def test_whose_weights_a_name_has(name: str, weights: str | None, wrong: bool) -> None:
    other = replace(LOADED, name=name, digest="e", weights_digest=weights)
    assert ids(facts(THERE, LOADED, other)) == (["model.wrong-digest"] if wrong else [])


@pytest.mark.parametrize(
    ("deep", "state"),
    [
        (DeepFacts(answer_seconds=0.2, asked="m"), "ok"),
        (DeepFacts(answer_seconds=45.0, asked="m"), "found"),
        (DeepFacts(answer_error="the stream ended", asked="m"), "found"),
        (DeepFacts(), "unknown"),
    ],
)
def test_one_token_in_time(deep: DeepFacts, state: str) -> None:
    assert outcomes(facts(THERE, LOADED, deep=deep))["model.no-token"].state == state


FAILURE = FailedLoad(MINE, "llama-server process has terminated: unknown model architecture: 'x'", NOW - 60)
LOG = LogFacts("server.log", 10, since_start=True, failed=(FAILURE,), now_seconds=NOW)


def failing(**changed: Any) -> LogFacts:
    return replace(LOG, failed=(replace(FAILURE, **changed),))


@pytest.mark.parametrize(
    ("log", "one", "expected"),
    [
        (LOG, GONE, ["model.load-failed"]),
        (failing(at_seconds=None), GONE, ["model.load-failed"]),
        # It is there by now, it was another model, it was long ago, or what it lacked is told of elsewhere.
        (LOG, THERE, []),
        (failing(weights_digest=OTHER), GONE, ["model.not-resident"]),
        (failing(at_seconds=NOW - 3601), GONE, ["model.not-resident"]),
        (failing(error="cudaMalloc failed: out of memory"), GONE, ["model.not-resident"]),
    ],
)
def test_a_load_that_failed_is_why_a_model_is_not_there(log: LogFacts, one: ResidentFacts, expected: list[str]) -> None:
    assert ids(facts(one, log=log)) == expected


def test_what_the_engine_said_of_a_load_is_what_is_shown() -> None:
    (found,) = outcomes(facts(GONE, log=LOG))["model.load-failed"].findings
    assert found.observed == FAILURE.error
    assert found.remedy.commands[0] == "llmctl verify"
    nothing = replace(LOG, failed=())
    assert outcomes(facts(GONE, log=nothing))["model.load-failed"].state == "ok"
    assert outcomes(facts(GONE, log=replace(nothing, since_start=False)))["model.load-failed"].state == "unknown"
    assert outcomes(facts(THERE, log=replace(nothing, since_start=False)))["model.load-failed"].state == "ok"


@pytest.mark.parametrize(("recent", "told"), [(1, True), (None, True), (0, False)])
def test_who_made_room_for_another_is_evidence(recent: int | None, told: bool) -> None:
    line = 'msg="llama-server model predicted to exceed available memory, evicting"'
    log = replace(LOG, failed=(), evicting=LogLine(line, 1, recent))
    (found,) = outcomes(facts(GONE, log=log))["model.not-resident"].findings
    assert found.evidence == ((line,) if told else ())
