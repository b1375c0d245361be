"""What a look means, reason by reason, and what is done about it; without any engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.core.guard.decide import CAPS, Budget, Taken, decide, loaded, probed
from llmctl.core.guard.facts import Errand, Finding, Limits, Loaded, Look, Memory, Pause, Runner, Want
from llmctl.core.guard.judge import is_starting, judge
from llmctl.core.guard.watch import watch
from llmctl.core.placement import Buffer, Witnesses

LIMITS = Limits(5.0)
DIGEST, WEIGHTS = "a" * 64, "sha256:" + "b" * 64
WANT = Want("qwen", "llmctl/qwen:aaaa", frozenset({DIGEST}), WEIGHTS, 8192, "full")
MINE = Loaded("llmctl/qwen:aaaa", DIGEST, 8192, 1000, 1000)
OTHER = Loaded("rival:latest", "c" * 64, 4096, 500, 500, 300.0, "sha256:" + "d" * 64)
RUNNER = Runner(10, "10/5", "S", 1.0, 0, "ok", False, 1200)
ON_GPU = Witnesses(None, buffers=(Buffer("CUDA0", "model", 1000),))
EVERYTHING = frozenset({"load", "probe", "end_runner", "restart_engine", "reset_uvm"})
GOOD = Look(
    at_seconds=100.0,
    owner="systemd",
    server="answers",
    server_identity="9/4",
    loaded=(MINE,),
    sees_processes=True,
    runner=RUNNER,
    others_busy=False,
    alias="there",
    gpu="fine",
    witnesses=ON_GPU,
)
GONE = replace(GOOD, loaded=(), runner=None)


KNOWN = Memory(
    server_identity="9/4",
    runner_identity="10/5",
    mark=(1.0, 0, 1200),
    advanced_at=95.0,
    there=True,
    was_resident=True,
    probe_wanted=False,
    probed_at=90.0,
    judged="resident",
)


def after(*looks: Look, memory: Memory | None = None, want: Want = WANT) -> tuple[Finding, Memory]:
    """The finding of the last of several looks, and the memory by then."""
    memory = memory or KNOWN
    for look in looks:
        memory = watch(memory, want, look)
        finding = judge(want, look, memory, LIMITS)
        memory = replace(memory, judged=finding.reason)
    return finding, memory


def later(look: Look, seconds: float) -> Look:
    return replace(look, at_seconds=look.at_seconds + seconds)


def runner(**changes: object) -> Runner:
    return replace(RUNNER, **changes)  # type: ignore[arg-type]


ABSENT = replace(GONE, server="absent", server_words="no server", server_identity=None)
AWAITING = replace(ABSENT, unit="awaiting_gpu")
SILENT = replace(GONE, server="silent", server_cpu_seconds=3.0, server_age_seconds=1000.0)
CASES = {
    "resident": ((GOOD,), "resident", None),
    "busy by its slots": ((replace(GOOD, runner=runner(processing=True)),), "busy", None),
    "busy by its CPU time": ((GOOD, later(replace(GOOD, runner=runner(cpu_seconds=2.0)), 5)), "busy", None),
    "busy by the GPU's memory": ((GOOD, later(replace(GOOD, runner=runner(gpu_bytes=1300)), 5)), "busy", None),
    "no server": ((ABSENT,), "not_running", None),
    "no server of llmctl's own": ((replace(ABSENT, owner="llmctl"),), "not_running", "restart_engine"),
    "an engine whose unit starts": ((replace(ABSENT, unit="starting"),), "loading", None),
    "an engine whose unit waits for a GPU": ((AWAITING, later(AWAITING, 80)), "loading", None),
    "a GPU that does not come": ((AWAITING, later(AWAITING, 95)), "gpu_lost", "reset_uvm"),
    "a GPU that came and went": (
        (AWAITING, later(replace(ABSENT, unit="starting"), 80), later(AWAITING, 95)),
        "loading",
        None,
    ),
    "an engine that has just begun": ((replace(ABSENT, unit="up", server_age_seconds=3.0),), "loading", None),
    "an engine that never listens": ((replace(ABSENT, unit="up", server_age_seconds=300.0),), "not_running", None),
    "an engine whose unit has failed": ((replace(ABSENT, unit="failed"),), "not_running", None),
    "another program on the port": ((replace(ABSENT, server="stranger"),), "not_running", None),
    "the runner has ended": ((replace(GOOD, runner=None),), "not_running", "load"),
    "a server that does not answer for a moment": ((SILENT, later(SILENT, 10)), "busy", None),
    "a server that has only begun": (
        (replace(SILENT, server_age_seconds=3.0), later(replace(SILENT, server_age_seconds=60.0), 57)),
        "loading",
        None,
    ),
    "a server that never answers": ((SILENT, later(SILENT, 31)), "stuck", "restart_engine"),
    "a silent server that works": (
        (SILENT, later(replace(SILENT, server_cpu_seconds=4.0), 31)),
        "busy",
        None,
    ),
    "unloaded by a client": ((GOOD, later(GONE, 5)), "evicted", "load"),
    "another model in use": (
        (GOOD, later(replace(GONE, loaded=(OTHER,), others_busy=True), 5)),
        "evicted",
        None,
    ),
    "another model, idle": (
        (GOOD, *(later(replace(GONE, loaded=(OTHER,)), 5 * n) for n in (1, 2, 3))),
        "evicted",
        "load",
    ),
    "another model, being loaded": (
        (GOOD, later(replace(GONE, other_runners=True, others_busy=True), 5)),
        "evicted",
        None,
    ),
    "the server looks for GPUs before it loads": ((GOOD, later(replace(GONE, discovering=True), 5)), "evicted", None),
    "the guard's own load, before its runner is there": (
        (GOOD, later(replace(GONE, discovering=True, others_busy=None, errand=Errand("load", 104.0, "qwen")), 5)),
        "loading",
        None,
    ),
    "the guard's own load, which waits for a foreign model": (
        (GOOD, later(replace(GONE, loaded=(OTHER,), others_busy=True, errand=Errand("load", 104.0, "qwen")), 5)),
        "loading",
        None,
    ),
    "the guard's load of another model": (
        (GOOD, later(replace(GONE, loaded=(OTHER,), others_busy=True, errand=Errand("load", 104.0, "phi")), 5)),
        "evicted",
        None,
    ),
    "a load under way": ((GOOD, later(replace(GOOD, loaded=()), 5)), "loading", None),
    "a load that does not come further": (
        tuple(later(replace(GOOD, loaded=()), 5 * n) for n in range(26)),
        "stuck",
        "end_runner",
    ),
    "another server process": ((replace(GONE, server_identity="77/8"),), "server_replaced", "load"),
    "the alias is gone": ((replace(GOOD, alias="gone"),), "wrong_digest", "load"),
    "the alias stands for something else": ((replace(GONE, alias="other"),), "wrong_digest", "load"),
    "another context": ((replace(GOOD, loaded=(replace(MINE, context=2048),)),), "wrong_context", "load"),
    "another context, in use": (
        (replace(GOOD, loaded=(replace(MINE, context=2048),), runner=runner(processing=True)),),
        "wrong_context",
        None,
    ),
    "two contexts of the same weights": (
        (replace(GOOD, loaded=(replace(MINE, context=2048), MINE)),),
        "resident",
        None,
    ),
    "another name of the same weights": (
        (replace(GOOD, loaded=(replace(MINE, name="mine", digest="e" * 64, weights_digest=WEIGHTS),)),),
        "resident",
        None,
    ),
    "in host memory": (
        (
            replace(
                GOOD,
                loaded=(replace(MINE, size_vram_bytes=0),),
                witnesses=Witnesses(None, buffers=(Buffer("CPU", "model", 1000),)),
            ),
        ),
        "on_cpu",
        "load",
    ),
    "in part": ((replace(GOOD, loaded=(replace(MINE, size_vram_bytes=400),)),), "partial", "load"),
    "nothing shows where it is": ((replace(GOOD, witnesses=Witnesses(None)),), "degraded", None),
    "stopped by a signal": (
        (GOOD, *(later(replace(GOOD, runner=runner(state="T", health="silent")), 5 * n) for n in range(1, 8))),
        "stuck",
        "end_runner",
    ),
    "stopped for a moment": (
        (GOOD, *(later(replace(GOOD, runner=runner(state="T", health="silent")), 5 * n) for n in range(1, 4))),
        "resident",
        None,
    ),
    "deaf": (
        (GOOD, *(later(replace(GOOD, runner=runner(health="silent")), 5 * n) for n in range(1, 8))),
        "stuck",
        "end_runner",
    ),
    "deaf but at work": (
        tuple(later(replace(GOOD, runner=runner(health="silent", cpu_seconds=1.0 + n)), 5 * n) for n in range(8)),
        "busy",
        None,
    ),
    "a probe that waits for nothing": (
        tuple(later(replace(GOOD, errand=Errand("probe", 100.0, "qwen")), 5 * n) for n in range(8)),
        "stuck",
        "end_runner",
    ),
    "a probe of another model that waits for nothing": (
        tuple(later(replace(GOOD, errand=Errand("probe", 100.0, "phi")), 5 * n) for n in range(8)),
        "resident",
        None,
    ),
    "a probe behind a long answer": (
        tuple(
            later(replace(GOOD, errand=Errand("probe", 100.0, "qwen"), runner=runner(cpu_seconds=1.0 + n)), 5 * n)
            for n in range(200)
        ),
        "busy",
        None,
    ),
    "being unloaded for ever": (
        tuple(later(replace(GOOD, loaded=(replace(MINE, stays_seconds=-5.0 - n),)), 5 * n) for n in range(8)),
        "stuck",
        "end_runner",
    ),
    "its keep-alive is over while it answers": (
        tuple(
            later(replace(GOOD, loaded=(replace(MINE, stays_seconds=-5.0),), runner=runner(cpu_seconds=1.0 + n)), 5 * n)
            for n in range(8)
        ),
        "busy",
        None,
    ),
    "the GPU is lost": ((replace(GOOD, gpu="lost", gpu_words="GPU is lost"),), "gpu_lost", None),
    "no driver": ((replace(GONE, gpu="absent", gpu_words="driver not loaded"),), "gpu_lost", None),
    "library and driver differ": ((replace(GONE, gpu="mismatch", gpu_words="mismatch"),), "driver_mismatch", None),
    "held": ((replace(GONE, pause=Pause("held", "held by down")),), "held", None),
    "leased": ((replace(GONE, pause=Pause("leased", "a game")),), "leased", None),
}


@pytest.mark.parametrize("case", CASES)
def test_each_reason_has_its_step(case: str) -> None:
    looks, reason, action = CASES[case]
    finding, memory = after(*looks)
    decision, _ = decide("qwen", finding, looks[-1], memory, Budget(), LIMITS, EVERYTHING)
    assert (finding.reason, decision.action) == (reason, action)
    assert finding.words


def test_a_model_that_was_never_there_is_loaded_and_probed() -> None:
    finding, memory = after(GONE, memory=Memory())
    decision, budget = decide("qwen", finding, GONE, memory, Budget(), LIMITS, EVERYTHING)
    assert (finding.reason, decision.action) == ("loading", "load")
    there = later(GOOD, 30)
    finding, memory = after(there, memory=loaded(memory, None))
    decision, _ = decide("qwen", finding, there, memory, budget, LIMITS, EVERYTHING)
    assert (finding.reason, decision.action) == ("resident", "probe")


def test_a_slow_probe_is_said() -> None:
    _, memory = after(GOOD)
    finding, _ = after(later(GOOD, 40), memory=probed(memory, 135.0, 34.0, None))
    assert finding.reason == "probe_slow"
    assert "34.0 s" in finding.words
    assert finding.good


def test_a_probe_that_fails_ends_the_runner_and_a_new_runner_is_believed_again() -> None:
    _, memory = after(GOOD)
    memory = probed(memory, 105.0, 1.0, "CUDA error")
    finding, memory = after(later(GOOD, 5), memory=memory)
    assert (finding.reason, finding.steps[0][0]) == ("stuck", "end_runner")
    fresh = later(replace(GOOD, runner=runner(pid=11, identity="11/9")), 10)
    finding, memory = after(fresh, memory=memory)
    assert finding.reason == "resident"
    assert memory.probe_wanted


def test_a_resume_is_followed_by_a_probe_and_nothing_else() -> None:
    finding, memory = after(replace(GOOD, resumed=True))
    decision, _ = decide("qwen", finding, GOOD, memory, Budget(), LIMITS, EVERYTHING)
    assert (finding.reason, decision.action) == ("resident", "probe")


def test_no_probe_while_it_answers() -> None:
    looks = [later(replace(GOOD, runner=runner(cpu_seconds=1.0 + n), resumed=True), 5 * n) for n in range(3)]
    finding, memory = after(*looks)
    decision, _ = decide("qwen", finding, looks[-1], memory, Budget(), LIMITS, EVERYTHING)
    assert (finding.reason, decision.action) == ("busy", None)


def test_who_evicts_is_named_with_its_context_and_how_often() -> None:
    looks: list[Look] = []
    for round_ in range(3):
        at = 40 * round_
        looks += [later(GOOD, at), later(replace(GONE, other_runners=True, others_busy=True), at + 5)]
        looks += [later(replace(GONE, loaded=(OTHER,)), at + n) for n in (10, 15, 20)]
    finding, _ = after(*looks)
    assert "rival:latest" in finding.words
    assert finding.remedy == "rival:latest (context 4096) took its place 3 times"


def test_what_is_not_required_to_be_on_a_gpu_asks_no_driver() -> None:
    want = replace(WANT, require="none")
    finding, _ = after(replace(GOOD, gpu="mismatch", witnesses=Witnesses(None)), want=want)
    assert finding.reason == "resident"


def test_on_the_cpu_is_tried_step_by_step_and_then_a_person_is_asked() -> None:
    on_cpu = replace(
        GOOD,
        loaded=(replace(MINE, size_vram_bytes=0),),
        witnesses=Witnesses(None, buffers=(Buffer("CPU", "model", 9),)),
    )
    budget, taken, degraded = Budget(), [], False
    for number in range(60):
        look = later(on_cpu, 5 * number)
        finding, memory = after(look)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, EVERYTHING)
        taken += [decision.action] if decision.action else []
        degraded = decision.degraded
    assert taken == ["load", "restart_engine", "reset_uvm"]
    assert degraded
    assert finding.remedy


@pytest.mark.parametrize("gpu", ["mismatch", "lost"])
def test_what_only_a_person_mends_is_named_at_once_and_never_tried(gpu: str) -> None:
    budget = Budget()
    for number in range(500):
        look = later(replace(GONE, gpu=gpu), 5 * number)  # type: ignore[arg-type]
        finding, memory = after(look)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, EVERYTHING)
        assert decision.action is None
        assert decision.degraded
    assert "reboot" in finding.remedy


def test_a_server_that_llmctl_did_not_start_is_never_signalled() -> None:
    looks = (replace(SILENT, owner="foreign"), later(replace(SILENT, owner="foreign"), 31))
    finding, memory = after(*looks)
    decision, _ = decide("qwen", finding, looks[-1], memory, Budget(), LIMITS, frozenset({"load", "probe"}))
    assert (finding.reason, decision.action, decision.degraded) == ("stuck", None, True)
    assert "did not start" in finding.remedy


def failing(seconds: float, server: str = "9/4", want: Want = WANT) -> tuple[list[str], Finding, bool]:
    """The steps taken while every load fails, with a server that is another process after it was started anew."""
    _, memory = after(GOOD, want=want)
    budget, taken, number = Budget(), [], 0
    while number * 5 < seconds:
        number += 1
        look = later(replace(GONE, server_identity=f"{server}{taken.count('restart_engine') or ''}"), 5 * number)
        finding, memory = after(look, memory=memory, want=want)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, EVERYTHING)
        taken += [decision.action] if decision.action else []
        if decision.action == "load":
            memory = loaded(memory, "it does not fit")
    return taken, finding, decision.degraded


def test_a_load_that_fails_is_tried_on_the_engine_started_anew_and_then_a_person_is_told_what_to_type() -> None:
    taken, finding, degraded = failing(500)
    assert taken.count("restart_engine") == 1
    assert taken[0] == taken[1] == taken[-1] == "load"
    assert taken.count("load") <= CAPS["load"]
    assert degraded
    assert finding.reason == "load_failed"
    assert "it does not fit" in finding.words
    assert "llmctl verify qwen" in finding.remedy
    assert "llmctl repair qwen" in finding.remedy


def test_what_a_person_must_type_has_the_rights_and_is_quoted() -> None:
    _, finding, _ = failing(500, want=replace(WANT, name="a b", llmctl="sudo llmctl"))
    assert "sudo llmctl verify 'a b'" in finding.remedy


def test_a_failed_load_is_forgotten_when_it_is_there_and_on_another_server() -> None:
    failed = loaded(after(GOOD)[1], "it does not fit")
    _, there = after(later(GOOD, 5), memory=failed)
    assert after(later(GONE, 10), memory=there)[0].reason == "evicted"
    assert after(later(GONE, 5), memory=failed)[0].reason == "load_failed"
    assert after(later(replace(GONE, discovering=True), 5), memory=failed)[0].reason == "load_failed"
    other = replace(later(GONE, 5), server_identity="77/1")
    assert after(other, memory=failed)[0].reason == "server_replaced"


@pytest.mark.parametrize("busy", [{"siblings_busy": True}, {"others_busy": True}, {"others_busy": None}])
def test_the_engine_is_not_started_anew_while_another_model_answers(busy: dict[str, bool | None]) -> None:
    on_cpu = replace(
        GOOD,
        loaded=(replace(MINE, size_vram_bytes=0),),
        witnesses=Witnesses(None, buffers=(Buffer("CPU", "model", 9),)),
        **busy,  # type: ignore[arg-type]
    )
    finding, memory = after(on_cpu)
    budget = Budget((Taken(0.0, "load", "on_cpu", "qwen"),))
    decision, budget = decide("qwen", finding, on_cpu, memory, budget, LIMITS, EVERYTHING)
    assert (finding.reason, decision.action, decision.degraded) == ("on_cpu", None, False)
    alone = replace(on_cpu, siblings_busy=False, others_busy=False)
    assert decide("qwen", finding, alone, memory, budget, LIMITS, EVERYTHING)[0].action == "restart_engine"


def test_who_keeps_evicting_is_named_while_its_model_is_in_use_too() -> None:
    """Once the steps are spent nothing but the window's end takes that back: not whether the rival works just now."""
    _, memory = after(GOOD)
    budget, seen = Budget(), []
    for number in range(1, 100):
        look = later(replace(GONE, loaded=(OTHER,), others_busy=number % 4 == 0), 5 * number)
        finding, memory = after(look, memory=memory)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, frozenset({"load"}))
        seen.append((decision.degraded, finding.remedy))
    first = next(number for number, (degraded, _) in enumerate(seen) if degraded)
    assert first < 90
    assert set(seen[first:]) == {(True, "rival:latest (context 4096) took its place 1 time")}


@pytest.mark.parametrize(
    "waits", [{"discovering": True}, {"loaded": (OTHER,), "others_busy": True}, {"other_runners": True}]
)
def test_a_load_that_failed_is_still_told_while_another_model_has_the_gpu(waits: dict[str, object]) -> None:
    """Nor does a step become fresh, or the word of what helps empty, because somebody else is at work just now."""
    failed = loaded(after(GOOD)[1], "it does not fit")
    look = later(replace(GONE, **waits), 5)  # type: ignore[arg-type]
    finding, memory = after(look, memory=failed)
    assert finding.reason == "load_failed"
    assert "it does not fit" in finding.words
    assert "llmctl repair qwen" in finding.remedy
    fresh, _ = decide("qwen", finding, look, memory, Budget(), LIMITS, EVERYTHING)
    spent, _ = decide("qwen", finding, look, memory, Budget().spend("qwen", "load_failed", 900.0), LIMITS, EVERYTHING)
    assert (fresh.action, fresh.degraded, spent.action, spent.degraded) == (None, False, None, True)


def test_an_engine_that_starts_is_not_degraded_because_loads_were_tried_before() -> None:
    finding, memory = after(starting := replace(ABSENT, unit="starting"))
    budget = Budget().spend("qwen", "loading", 900.0)
    assert not decide("qwen", finding, starting, memory, budget, LIMITS, EVERYTHING)[0].degraded
    finding, memory = after(GONE, memory=Memory())
    assert decide("qwen", finding, GONE, memory, budget, LIMITS, EVERYTHING)[0].degraded


def test_the_guide_says_how_long_a_gpu_is_waited_for_and_what_is_done_then() -> None:
    guide = (Path(__file__).parents[2] / "docs/guard.md").read_text()
    limit = f"{LIMITS.start_seconds:.0f} s ({LIMITS.start_seconds / LIMITS.interval_seconds:.0f} looks) for a GPU"
    rows = {line.split("|")[1].strip(): line for line in guide.splitlines() if limit in line}
    assert set(rows) == {"`loading`", "`gpu_lost` too"}
    assert "--reset-uvm" in rows["`gpu_lost` too"]


@pytest.mark.parametrize(
    ("look", "starting"),
    [
        (replace(ABSENT, unit="starting"), True),
        (replace(ABSENT, unit="up", server_age_seconds=1.0), True),
        (replace(ABSENT, unit="up", server_age_seconds=1000.0), False),
        (replace(ABSENT, unit="up"), False),
        (replace(ABSENT, unit="awaiting_gpu"), False),
        (replace(ABSENT, unit="failed"), False),
        (ABSENT, False),
        (replace(GOOD, unit="up", server_age_seconds=1.0), False),
    ],
)
def test_a_server_that_its_unit_brings_up_is_looked_at_again_soon(look: Look, starting: bool) -> None:
    assert is_starting(look, LIMITS) is starting
