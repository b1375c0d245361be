"""Whatever is seen, in whatever order: no step is taken more often than its budget, and none against anybody's work."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core.guard.decide import CAPS, Budget, decide, judged, loaded, probed
from llmctl.core.guard.facts import Errand, Limits, Look, Memory, Pause
from llmctl.core.guard.judge import judge
from llmctl.core.guard.watch import watch
from llmctl.core.placement import Buffer, Witnesses
from tests.guard.test_judge import EVERYTHING, GOOD, MINE, OTHER, RUNNER, WANT

LIMITS = Limits(5.0)

runners = st.one_of(
    st.none(),
    st.builds(
        lambda identity, state, cpu, health, processing: replace(
            RUNNER, identity=identity, state=state, cpu_seconds=cpu, health=health, processing=processing
        ),
        st.sampled_from(["10/5", "11/6"]),
        st.sampled_from(["S", "R", "T", "D"]),
        st.sampled_from([1.0, 1.01, 2.0, 3.0]),
        st.sampled_from(["ok", "silent", "loading", "unasked"]),
        st.sampled_from([None, True, False]),
    ),
)
entries = st.sampled_from(
    [
        MINE,
        OTHER,
        replace(MINE, context=2048),
        replace(MINE, size_vram_bytes=0),
        replace(MINE, size_vram_bytes=10),
        replace(MINE, stays_seconds=-3.0),
    ]
)
looks = st.builds(
    Look,
    at_seconds=st.just(0.0),
    owner=st.sampled_from(["llmctl", "systemd", "foreign"]),
    server=st.sampled_from(["answers", "answers", "answers", "silent", "absent", "stranger"]),
    server_identity=st.sampled_from([None, "9/4", "8/3"]),
    server_state=st.sampled_from([None, "S", "T"]),
    server_cpu_seconds=st.sampled_from([None, 1.0, 2.0]),
    server_age_seconds=st.sampled_from([None, 1.0, 500.0]),
    loaded=st.lists(entries, max_size=3).map(tuple),
    sees_processes=st.booleans(),
    runner=runners,
    others_busy=st.sampled_from([None, True, False]),
    other_runners=st.booleans(),
    discovering=st.booleans(),
    siblings_busy=st.booleans(),
    unit=st.sampled_from([None, "starting", "up", "failed", "stopped"]),
    alias=st.sampled_from([None, "there", "there", "gone", "other"]),
    gpu=st.sampled_from(["fine", "fine", "fine", "lost", "mismatch", "absent", "unknown"]),
    pause=st.sampled_from([None, None, None, Pause("held", "a person"), Pause("leased", "a game")]),
    resumed=st.booleans(),
    errand=st.sampled_from(
        [None, None, Errand("load", 0.0, "qwen"), Errand("probe", 0.0, "qwen"), Errand("restart_engine", 0.0, "other")]
    ),
    witnesses=st.sampled_from([None, Witnesses(None), Witnesses(None, buffers=(Buffer("CUDA0", "model", 9),))]),
)
# A state lasts for some looks, or else nothing would ever be stuck.
stories = st.lists(
    st.tuples(looks, st.integers(1, 12), st.sampled_from([0.5, 5.0, 5.0, 40.0])), min_size=1, max_size=25
)
wants = st.sampled_from([WANT, replace(WANT, require="none"), replace(WANT, require="partial")])
outcomes = st.sampled_from([None, "it does not fit", ""])


# A probe that fails without a word is a probe that fails.
@example([(GOOD, 12, 5.0)], WANT, set(EVERYTHING), "")
@given(stories, wants, st.sets(st.sampled_from(sorted(EVERYTHING))), outcomes)
def test_no_sequence_of_facts_is_acted_on_too_often_or_against_anybody(story, want, can, outcome) -> None:  # type: ignore[no-untyped-def]
    now, memory, budget = 1000.0, Memory(), Budget()
    taken: list[tuple[float, str]] = []
    for look, times, seconds in story:
        for _ in range(times):
            now += seconds
            seen = replace(look, at_seconds=now, errand=look.errand and replace(look.errand, since_seconds=now - 50))
            memory = watch(memory, want, seen)
            finding = judge(want, seen, memory, LIMITS)
            decision, budget = decide(want.name, finding, seen, memory, budget, LIMITS, frozenset(can))
            memory = judged(memory, seen, finding)
            if decision.action is None:
                continue
            taken.append((now, decision.action))
            assert decision.action in can
            assert seen.pause is None
            # Nor is another model's answer ended with the server.
            alone = seen.others_busy is False and not seen.siblings_busy
            assert decision.action != "restart_engine" or seen.server != "answers" or alone
            there = seen.server == "answers" and any(line.digest == MINE.digest for line in seen.loaded)
            if there and seen.runner:
                # Work that comes further is never touched; a request in work only when nothing has for a long time.
                assert not memory.advancing or finding.reason == "stuck"
                assert (
                    finding.reason != "stuck"
                    or now - (memory.advanced_at or 0) >= LIMITS.patience_seconds
                    or memory.probe_error is not None
                )
                assert finding.reason == "stuck" or not (seen.runner.processing and seen.runner.state != "T")
            if decision.action == "load":
                memory = loaded(memory, outcome)
            if decision.action == "probe":
                memory = probed(memory, now, 1.0, outcome)
    for (at, _), _ in itertools.product(taken, range(1)):
        inside = Counter(action for other, action in taken if at <= other < at + LIMITS.window_seconds)
        assert all(count <= CAPS[action] for action, count in inside.items()), inside


def test_a_client_that_always_evicts_is_answered_less_and_less_often() -> None:
    """An hour in which the model is gone at every second look: the pauses grow, and the budget ends it for a while."""
    now, memory, budget, loads, degraded = 0.0, Memory(was_resident=True), Budget(), [], 0
    gone = replace(GOOD, loaded=(), runner=None)
    for number in range(720):
        now += 5.0
        look = replace(GOOD if number % 2 else gone, at_seconds=now)
        memory = watch(memory, WANT, look)
        finding = judge(WANT, look, memory, LIMITS)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, frozenset({"load"}))
        memory = judged(memory, look, finding)
        loads += [now] if decision.action == "load" else []
        degraded += decision.degraded
    per_window = Counter(int(at // LIMITS.window_seconds) for at in loads)
    assert max(per_window.values()) <= CAPS["load"]
    assert len(loads) <= 40
    assert degraded


def test_the_pause_before_the_same_step_doubles() -> None:
    gone = replace(GOOD, loaded=(), runner=None)
    memory, budget, loads = Memory(), Budget(), []
    for number in range(110):
        look = replace(gone, at_seconds=5.0 * number)
        memory = watch(memory, WANT, look)
        finding = judge(WANT, look, memory, LIMITS)
        decision, budget = decide("qwen", finding, look, memory, budget, LIMITS, EVERYTHING)
        loads += [look.at_seconds] if decision.action == "load" else []
    assert loads == [0.0, 10.0, 30.0, 70.0, 150.0, 310.0]


def test_several_models_share_one_budget() -> None:
    budget, ended = Budget(), 0
    for number in range(100):
        for name in ("a", "b", "c"):
            stopped = replace(GOOD, at_seconds=5.0 * number, runner=replace(RUNNER, state="T", health="silent"))
            memory = Memory(runner_identity=RUNNER.identity, mark=(1.0, 0, 1200), advanced_at=-100.0, there=True)
            finding = judge(WANT, stopped, memory, LIMITS)
            can = frozenset({"end_runner"})
            decision, budget = decide(name, finding, stopped, memory, budget, LIMITS, can)
            ended += decision.action == "end_runner"
    assert ended == CAPS["end_runner"]
