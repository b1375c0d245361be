"""The memory checks on facts: whose turn it is to speak, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.checks import memory
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.fit import FitFacts, ModelFit, Way
from llmctl.core.checks.facts.gpu import Card, GpuFacts, GpuProcess
from llmctl.core.checks.facts.host import HostFacts
from llmctl.core.checks.facts.log import LogFacts, LogLine
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.server import ServerFacts
from llmctl.core.placement import Buffer, Claim, Proof, Witnesses
from llmctl.core.prediction import Predicted
from llmctl.core.profile import GpuSpec, ModelSpec, Profile, Require

MIB, GIB = 1 << 20, 1 << 30
LOADED = LoadedFacts("m", "ab", 4096, GIB, GIB, None)
CUDA = (Buffer("CUDA0", "model", 900 * MIB), Buffer("CUDA0", "KV", 100 * MIB), Buffer("CPU", "model", 50 * MIB))
RPC = tuple(Buffer(one.device.replace("CUDA0", "RPC0"), one.kind, one.size_bytes) for one in CUDA)


def resident(
    buffers: tuple[Buffer, ...] | None = CUDA, measured: int | None = None, place: Any = "gpu", claimed: int = 985 * MIB
) -> ModelsFacts:
    seen = Witnesses(Claim("ab", 4096, GIB, claimed), buffers, measured)
    predicted = Predicted(1000 * MIB, 300 * MIB, 0, 15 * MIB)
    one = ResidentFacts(
        "m", "m", frozenset({"ab"}), "sha256:0", 4096, LOADED, Proof("proved", place), seen, predicted, 7, ()
    )
    return ModelsFacts("full", (one,), (LOADED,))


def facts(require: Require = "full", **areas: Any) -> Facts:
    usual: dict[str, object] = {
        "profile": ProfileFacts(Profile("mine", (ModelSpec("m"),), gpu=GpuSpec(require))),
        "server": ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="llmctl", pid=1),
        "gpu": GpuFacts("fine", cards=(Card(0, "RTX", 24 * GIB, 20 * GIB),), xids=()),
        "host": HostFacts(32 * GIB, 20 * GIB, 0),
        "models": resident(),
        "fit": FitFacts(),
        "log": LogFacts("server.log", 10, True),
    }
    return Facts({**usual, **areas})


def outcomes(found: Facts) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in examine(memory.CHECKS, found)}


def ids(found: Facts) -> list[str]:
    return [name for name, outcome in outcomes(found).items() if outcome.state == "found"]


def test_a_model_that_lies_where_it_should_is_nothing_to_tell_of() -> None:
    assert {outcome.state for outcome in outcomes(facts()).values()} == {"ok"}


@pytest.mark.parametrize(
    ("verdict", "require", "state"),
    [
        ("full", "full", "ok"),
        ("partial", "full", "found"),
        ("partial", "partial", "ok"),
        ("no", "partial", "found"),
        ("no", "none", "ok"),
        ("unknown", "full", "unknown"),
    ],
)
def test_what_fits_is_judged_by_what_is_required(verdict: str, require: Require, state: str) -> None:
    one = ModelFit("m", verdict, context=4096, needed_bytes=23 * GIB, free_bytes=20 * GIB, total_bytes=24 * GIB)
    assert outcomes(facts(require, fit=FitFacts((one,))))["memory.does-not-fit"].state == state


def test_the_ways_out_are_the_commands_and_others_are_blamed_only_where_they_matter() -> None:
    way = Way("a context of 2,048", "llmctl fit m --context 2048")
    for total, words in ((24 * GIB, "free what others hold"), (12 * GIB, "take one of these")):
        one = ModelFit("m", "no", needed_bytes=23 * GIB, free_bytes=2 * GIB, total_bytes=total, ways=(way,))
        (finding,) = outcomes(facts(fit=FitFacts((one,))))["memory.does-not-fit"].findings
        assert finding.remedy.text.startswith(words)
        assert finding.remedy.commands == (way.command,)


@pytest.mark.parametrize(
    ("models", "odd"),
    [
        (resident(CUDA, 1290 * MIB), False),
        (resident(CUDA, 1300 * MIB + 1), False),
        (resident(CUDA, 1325 * MIB), False),
        (resident(CUDA, 1500 * MIB), True),
        (resident(CUDA, 800 * MIB), True),
        (resident(None, 1290 * MIB), False),
        # What /api/ps loses is no difference, and what it guesses no figure.
        (resident(claimed=1000 * MIB), False),
        (resident(claimed=900 * MIB), True),
        (resident(claimed=1100 * MIB), True),
        (resident(None, claimed=700 * MIB), False),
        # NVML sees nothing of a device that is no card.
        (resident(RPC, 0), False),
        (resident((*RPC, Buffer("RPC0", "compute", 40 * MIB)), None), True),
    ],
)
def test_figures_that_agree_within_two_percent_agree(models: ModelsFacts, odd: bool) -> None:
    assert ids(facts(models=models)) == (["memory.figures-disagree"] if odd else [])


def test_what_loads_before_came_to_is_the_evidence() -> None:
    before = FitFacts(residuals={"m": ((1300 * MIB, 1490 * MIB), (1300 * MIB, 1500 * MIB)), "other": ((1, 2),)})
    (finding,) = outcomes(facts(models=resident(CUDA, 1500 * MIB), fit=before))["memory.figures-disagree"].findings
    assert finding.evidence[0] == "a load before: 1.3 GiB predicted, 1.5 GiB measured"
    assert len(finding.evidence) == 2


def test_a_model_that_lies_where_it_should_by_now_is_given_less_after_memory_ran_out() -> None:
    log = LogFacts("server.log", 10, True, out_of_memory=LogLine("cudaMalloc failed: out of memory", 1))
    ways = tuple(Way(words, f"llmctl fit m {words}") for words in ("--kv-cache q8_0", "--context 2048"))
    (finding,) = outcomes(facts(log=log, fit=FitFacts(smaller=ways)))["memory.out-of-memory"].findings
    assert finding.remedy.commands == tuple(way.command for way in ways)


def test_a_context_that_was_lowered_for_want_of_memory_is_evidence() -> None:
    lowered = LogLine('msg="llama-server load failed; reducing automatic context and retrying once" old_num_ctx=9', 1)
    log = LogFacts("server.log", 10, True, out_of_memory=LogLine("out of memory", 1), context_lowered=lowered)
    (finding,) = outcomes(facts(log=log))["memory.out-of-memory"].findings
    assert finding.evidence == ("out of memory", lowered.text)


@pytest.mark.parametrize(("free", "found"), [(1024, False), (950, False), (600, True)])
def test_the_reserve_is_asked_of_the_models_own_cards(free: int, found: bool) -> None:
    own = Card(0, "RTX", 24 * GIB, free * MIB, processes=(GpuProcess(7, "llama-server", "me", 20 * GIB, "compute"),))
    other = Card(1, "RTX", 24 * GIB, 10 * MIB)
    assert ids(facts(gpu=GpuFacts("fine", cards=(own, other)))) == (["memory.no-headroom"] if found else [])
    assert ids(facts("none", gpu=GpuFacts("fine", cards=(own, other)))) == []


def test_host_memory_counts_for_what_lies_there() -> None:
    full = HostFacts(32 * GIB, 100 * MIB, 0)
    assert ids(facts(host=full)) == []
    assert ids(facts(host=full, models=resident(place="partial"))) == ["memory.host-short"]
    assert outcomes(facts(host=HostFacts(None, None, None)))["memory.host-short"].state == "unknown"


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB: cudaMalloc failed: out of memory",
            "GPU",
        ),
        ("alloc_tensor_range: failed to allocate CPU buffer of size 233316864", "host memory"),
    ],
)
def test_which_memory_ran_out(line: str, where: str) -> None:
    log = LogFacts("server.log", 10, True, out_of_memory=LogLine(line, 3))
    (finding,) = outcomes(facts(log=log))["memory.out-of-memory"].findings
    assert finding.observed.startswith("3 times")
    assert where in finding.observed
    lacking = FitFacts((ModelFit("m", "no", needed_bytes=2, free_bytes=1),))
    assert ids(facts(log=log, fit=lacking)) == ["memory.does-not-fit"]


@pytest.mark.parametrize(("recent", "severity"), [(None, None), (2, None), (0, "info")])
@pytest.mark.parametrize(
    ("kind", "check"), [("out_of_memory", "out-of-memory"), ("memory_not_recovered", "not-recovered")]
)
def test_what_ran_out_long_ago_is_for_information(
    kind: str, check: str, recent: int | None, severity: str | None
) -> None:
    log = replace(LogFacts("server.log", 10, True), **{kind: LogLine("cudaMalloc failed", 3, recent)})  # type: ignore[arg-type]
    (finding,) = outcomes(facts(log=log))[f"memory.{check}"].findings
    assert finding.severity == severity
    assert ("none within the last hour" in finding.observed) == (recent == 0)
