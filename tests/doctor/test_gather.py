"""Facts that do not come: they are unknown, and the others are there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from llmctl.cli import main
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.hashed import HashedFacts
from llmctl.core.progress import Step
from llmctl.env import Env
from llmctl.workflows import bundle, gather
from llmctl.workflows.gather import deep, hashed, host, log, speed
from tests.doctor.conftest import Patient
from tests.doctor.test_gpu import RUN


def test_an_area_that_hangs_is_unknown_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.commands.doctor import given

    hangs = threading.Event()
    monkeypatch.setattr(gather, "DEADLINE_SECONDS", 0.5)
    monkeypatch.setattr(host, "gather", lambda _: hangs.wait(20))
    monkeypatch.setattr(speed, "gather", lambda given: given.of_host)
    try:
        facts = gather.gather(given(Env(), None), ("shell", "host", "speed"))
    finally:
        hangs.set()
    assert facts.shell.user
    assert set(facts.missing) == {"host", "speed"}
    assert all("took longer than" in why for why in facts.missing.values())


@pytest.mark.parametrize(("hangs", "comes"), [("deep", "hashed"), ("hashed", "deep")])
def test_what_is_slow_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch, hangs: str, comes: str) -> None:
    """A hash that is late loses no answer, an answer that is late no hash; and whoever waits is told of both."""
    from llmctl.commands.doctor import given

    ended = threading.Event()
    facts = {"deep": DeepFacts(asked="m"), "hashed": HashedFacts(hashed_bytes=7)}
    for name, module in (("deep", deep), ("hashed", hashed)):
        late = name == hangs
        monkeypatch.setattr(module, "gather", lambda _, name=name, late=late: (late and ended.wait(20), facts[name])[1])
    monkeypatch.setattr(gather, "DEEP", {name: (name, 0.5 if name == hangs else 20.0) for name in facts})
    steps: list[Step] = []
    try:
        found = gather.gather(replace(given(Env(), None), progress=steps.append), (), deep=True)
    finally:
        ended.set()
    assert found.areas == {comes: facts[comes]}
    assert found.missing == {hangs: f"{hangs} took longer than 0 s"}
    assert [(step.id, step.state) for step in steps[:2]] == [("deep", "running"), ("hashed", "running")]
    assert {step.id: step.state for step in steps} == {hangs: "failed", comes: "done"}


def test_a_model_that_is_asked_does_not_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read until the answer is there, or late."""
    from llmctl.commands.doctor import given

    order: list[str] = []
    answered = threading.Event()
    monkeypatch.setattr(deep, "gather", lambda _: (answered.wait(20), order.append("answer"), DeepFacts())[-1])
    monkeypatch.setattr(
        hashed, "gather", lambda given: (given.wait_for("deep"), order.append("hash"), HashedFacts())[-1]
    )

    def progress(step: Step) -> None:
        if step.id == "hashed" and step.state == "running":
            answered.set()

    assert not gather.gather(replace(given(Env(), None), progress=progress), (), deep=True).missing
    assert order == ["answer", "hash"]


def test_a_driver_that_hangs_does_not_keep_the_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.system import nvml

    ended = threading.Event()
    monkeypatch.setattr(gather, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(nvml, "gpus", lambda: ended.wait(20))
    out = io.StringIO()
    try:
        code = main(["doctor", "--explain", "--profile", "24gb"], Env(stdout=out, stderr=io.StringIO()))
    finally:
        ended.set()
    assert code == 0
    assert "this machine has cards that cannot be told: NVML does not tell of them" in " ".join(out.getvalue().split())


def test_a_journal_that_hangs_does_not_keep_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.commands.doctor import given

    ended = threading.Event()
    monkeypatch.setattr(gather, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(log, "read", lambda _: ended.wait(20))
    try:
        assert bundle.log_lines(given(Env(), None)) == ["the log could not be read: log took longer than 0 s"]
    finally:
        ended.set()


@pytest.mark.real("ollama", "model")
def test_a_hash_that_is_late_loses_no_answer(healthy: Patient) -> None:
    """The machine's own hashing, with no time at all."""
    prelude = "from llmctl.workflows.gather import hashed\nhashed.HASH_SECONDS = -1.0"
    done = subprocess.run(
        [sys.executable, "-c", prelude + RUN, "doctor", "--deep", "--json"],
        env={**os.environ, **healthy.cli.environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(done.stdout)
    assert {one["id"]: one["why"] for one in report["unknown"]}["store.damaged"].startswith("hashing took longer than")
    assert "model.no-token" not in str(report["unknown"])
    assert report["findings"] == []
    assert "ask for one answer" in done.stderr
    assert "hash every pinned blob: hashing took longer" in done.stderr
