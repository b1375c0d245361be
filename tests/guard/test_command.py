"""The verb itself: `--once`, `--hold`, and what it refuses."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from llmctl.cli import main
from llmctl.env import Env
from llmctl.system import clocks, pauses
from tests.lifecycle.conftest import Llmctl

PROFILE = "schema: 1\nserver: {host: 127.0.0.1, port: 9}\nmodels: [{name: some}]\n"


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["guard", *arguments], Env())
    said = capsys.readouterr()
    return code, said.out, said.err


def runtime() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "llmctl" / "run"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("1d", 86400.0)]
)
def test_a_hold_lasts_as_long_as_it_is_asked_for(text: str, seconds: float, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--hold", text, "--json", capsys=capsys)
    held = pauses.held(runtime())
    assert code == 0
    assert held is not None
    assert held.until_seconds is not None
    assert held.until_seconds - held.since_seconds == pytest.approx(seconds)
    assert json.loads(out)["until_seconds"] == held.until_seconds


def test_a_hold_is_no_longer_when_the_wall_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses.hold(runtime(), "a test", 60.0)
    monkeypatch.setattr("time.time", lambda now=time.time: now() - 86_400)
    held = pauses.held(runtime())
    assert held is not None
    assert held.left_seconds == pytest.approx(60.0, abs=30)
    monkeypatch.setattr("llmctl.system.clocks.since_boot_seconds", lambda now=clocks.since_boot_seconds: now() + 61)
    assert pauses.held(runtime()) is None


def test_a_hold_of_an_earlier_boot_ends_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses.hold(runtime(), "a test", 3600.0)
    monkeypatch.setattr("llmctl.system.clocks.since_boot_seconds", lambda: 5.0)
    assert pauses.held(runtime()) is not None
    monkeypatch.setattr("time.time", lambda now=time.time: now() + 3601)
    assert pauses.held(runtime()) is None


def test_a_hold_without_a_duration_lasts_until_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--hold", capsys=capsys)[:2] == (0, "the guard keeps its hands off. End that: llmctl guard --resume\n")
    held = pauses.held(runtime())
    assert held is not None
    assert held.until_seconds is None
    assert run("--resume", capsys=capsys)[:2] == (0, "the guard is at work again\n")
    assert run("--resume", capsys=capsys)[:2] == (0, "nothing held the guard\n")
    assert pauses.held(runtime()) is None


@pytest.mark.parametrize(
    "arguments",
    [["--hold", "soon"], ["--hold", "-5m"], ["--hold", "0"], ["--hold", "--resume"], ["5m"], ["--interval", "0"]],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(*arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert "error:" in err


def test_a_model_without_a_pin_is_named_with_the_command_that_gets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(PROFILE)
    code, out, _ = run("--once", "--json", "--profile", str(tmp_path / "p.yaml"), capsys=capsys)
    document = json.loads(out)
    assert document["schema"] == 1
    (model,) = document["models"]
    assert (model["model"], model["reason"], model["good"]) == ("some", "degraded", False)
    assert model["remedy"] == "llmctl up gets it and pins it"
    # No server runs, whatever else is wrong.
    assert code == 3
    assert not runtime().exists()


@pytest.mark.real("ollama", "model")
def test_once_says_what_is_and_changes_nothing(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    assert llmctl("guard", "--once").out == "starter  resident: starter is resident in host memory\n"
    runner = llmctl.runner
    llmctl.kill(runner)
    once = llmctl("guard", "--once", "--json")
    assert once.code == 5
    assert once.json["models"][0]["reason"] == "not_running"
    assert len(llmctl.owned()) == 1
    llmctl("down")
    assert llmctl("guard", "--resume").code == 0
    assert llmctl("guard", "--once").code == 3
