"""Another engine in the place of the one that serves, between the real 0.33.0 and 0.34.0; or everything as it was.

Speeds are not asserted: where an upgrade should go through, the margin is so wide that a busy machine does not matter.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.lifecycle.conftest import Llmctl
from tests.parts.engine import InstalledEngine
from tests.upgrade.conftest import NEW, OLD, Box

pytestmark = [pytest.mark.real("ollama", "engines", "model"), pytest.mark.timeout(600)]

WIDE = ("--margin", "99")


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (NEW, OLD)])
def test_upgrade_then_rollback_then_forward_again(box: Callable[[str], Box], old: str, new: str) -> None:
    here = box(old)
    done = here.llmctl("engine", "upgrade", new, *WIDE, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["outcome"], found["away_seconds"] > 0) == ("changed", True)
    model = found["models"][0]
    assert (model["old_place"], model["new_place"], model["equal_tokens"]) == ("cpu", "cpu", model["tokens"])
    assert model["difference"] < 0.01
    assert model["old_tokens_per_second"] > 0
    assert (here.engines.link("current"), here.engines.link("previous")) == (new, old)
    assert here.serves() == new
    assert here.trials() == []

    back = here.llmctl("engine", "rollback")
    assert back.code == 0, back.err
    assert "No model answered for" in back.out
    assert (here.serves(), here.engines.link("current"), here.engines.link("previous")) == (old, old, new)
    assert here.llmctl("engine", "rollback").code == 0
    assert here.serves() == new


def test_what_serves_already_costs_nothing(box: Callable[[str], Box]) -> None:
    here = box(NEW)
    before = here.llmctl.owned()
    done = here.llmctl("engine", "upgrade", "--json")
    assert (done.code, done.json["outcome"]) == (0, "already")
    assert here.llmctl.owned() == before


def test_dry_run_does_nothing(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    before = here.llmctl.owned()
    done = here.llmctl("engine", "upgrade", "--dry-run")
    assert done.code == 0
    assert "would put 0.34.0 in the place of 0.33.0" in done.out
    assert (here.llmctl.owned(), here.engines.link("current")) == (before, OLD)


def kept(here: Box, *, went: bool = True) -> str:
    """Upgrade to the broken engine: it is not used and the old one serves. Its reasons."""
    done = here.llmctl("engine", "upgrade", NEW, *WIDE, "--json")
    assert done.code == 5, done.err
    assert (done.json["outcome"], done.json["in_use"].partition("-")[0]) == ("kept", OLD)
    assert (done.json["away_seconds"] is not None) == went
    assert (here.engines.link("current"), here.engines.link("previous")) == (OLD, None)
    assert here.serves() == OLD
    assert here.trials() == []
    return "; ".join(done.json["reasons"])


def test_a_new_engine_without_its_runner_is_none(box: Callable[[str], Box]) -> None:
    """It counts as not installed, and here nothing can install it."""
    here = box(OLD)
    here.engines.runner(NEW).unlink()
    done = here.llmctl("engine", "upgrade", NEW, "--yes", "--json")
    assert done.code == 1
    assert here.serves() == OLD


def test_a_runner_that_does_not_run_is_seen_before_the_model_goes(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    here.engines.wrap(here.engines.runner(NEW), before="echo no GLIBC for me; exit 1\n")
    assert "no GLIBC for me" in kept(here, went=False)


def test_a_runner_that_cannot_load(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    crash = '[[ "$*" == *--model* ]] && { echo "error: unknown model architecture" >&2; exit 1; }\n'
    here.engines.wrap(here.engines.runner(NEW), before=crash)
    assert kept(here)


def test_a_server_that_ends_as_it_starts(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    ends = '[ "$1" = serve ] && { echo "panic: no such instruction" >&2; exit 2; }\n'
    here.engines.wrap(here.engines.prefix(NEW) / "bin" / "ollama", before=ends)
    assert "panic: no such instruction" in kept(here)


def test_a_server_that_serves_on_trial_and_not_in_its_place(box: Callable[[str], Box]) -> None:
    """The flip itself is undone: it starts only where its own HOME is empty, as in the trial."""
    here = box(OLD)
    ends = '[ "$1" = serve ] && [ -z "$OLLAMA_NOPRUNE" ] && { echo "panic: only on trial" >&2; exit 2; }\n'
    here.engines.wrap(here.engines.prefix(NEW) / "bin" / "ollama", before=ends)
    assert "panic: only on trial" in kept(here)


@pytest.mark.parametrize(
    "wrong",
    [
        # Every normalisation is off; or a few of the layers see every word too near, and most texts go on as before.
        "--override-kv gemma3.attention.layer_norm_rms_epsilon=float:0.05",
        "--rope-scaling linear --rope-scale 8",
    ],
)
def test_wrong_answers_by_a_broken_kernel(box: Callable[[str], Box], wrong: str) -> None:
    """The right weights, computed wrongly."""
    here = box(OLD)
    loads = f'extra=(); [[ "$*" == *--model* ]] && extra=({wrong})\n'
    here.engines.wrap(here.engines.runner(NEW), before=loads, after=' "${extra[@]}"')
    assert "instead of" in kept(here)


def test_wrong_answers_by_other_weights(box: Callable[[str], Box], starter_gguf: Path, tmp_path: Path) -> None:
    """The runner is told the pinned file and opens another: the same model with fewer bits."""
    here = box(OLD)
    other = tmp_path / "other.gguf"
    quantize = here.engines.runner(OLD).with_name("llama-quantize")
    subprocess.run([quantize, "--allow-requantize", starter_gguf, other, "Q2_K", "2"], check=True, capture_output=True)
    loads = f'extra=(); [[ "$*" == *--model* ]] && extra=(--model {other})\n'
    here.engines.wrap(here.engines.runner(NEW), before=loads, after=' "${extra[@]}"')
    assert "instead of" in (said := kept(here)) or "differ" in said


def test_a_fraction_of_the_speed(box: Callable[[str], Box]) -> None:
    """The runner is stopped for three quarters of the time."""
    here = box(OLD)
    brake = (
        '[[ "$*" == *--model* ]] && (trap "" TERM; while kill -STOP $$; do sleep 0.15; kill -CONT $$; sleep 0.05;'
        " done) >/dev/null 2>&1 &\n"
    )
    here.engines.wrap(here.engines.runner(NEW), before=brake)
    done = here.llmctl("engine", "upgrade", NEW, "--json")
    assert done.code == 5, done.out
    assert "slower than" in done.json["reasons"][0]
    assert (here.serves(), here.engines.link("current")) == (OLD, OLD)


@pytest.mark.parametrize("step", ["old engine", "unload", "trial", "new engine: loading", "restart", "load"])
def test_sigkill_at_any_step_leaves_one_engine_that_serves(box: Callable[[str], Box], step: str) -> None:
    here = box(OLD)
    process = here.llmctl.start("engine", "upgrade", NEW, *WIDE)
    assert process.stderr is not None
    restarted = False
    for line in process.stderr:
        restarted |= "restart:" in line
        if line[4:].startswith(step) and (step != "load" or restarted):
            break
    process.kill()
    process.communicate()
    until(lambda: not here.trials(), "the engine on trial goes on")
    up = here.llmctl("up")
    assert up.code == 0, up.err
    assert "had the GPU and ended without giving it back" in up.err
    assert (here.serves(), here.engines.link("current")) == (OLD, OLD)
    assert len([pid for pid in here.llmctl.owned() if b"\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]) == 1
    again = here.llmctl("engine", "upgrade", NEW, *WIDE)
    assert again.code == 0, again.err
    assert here.serves() == NEW


def test_while_it_is_tried_nothing_loads_the_model(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    process = here.llmctl.start("engine", "upgrade", NEW, *WIDE)
    assert process.stderr is not None
    next(line for line in process.stderr if "trial:" in line)
    asked = here.llmctl("ask", "Hello", "--json")
    assert (asked.code, asked.error["code"]) == (3, "leased")
    assert "engine upgrade" in asked.error["message"]
    assert here.llmctl("yield", "--", "true").code == 5
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert here.serves() == NEW


def test_rollback_when_nothing_runs_is_for_the_next_up(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    assert here.llmctl("engine", "rollback").code == 4
    assert here.llmctl("engine", "upgrade", NEW, *WIDE).code == 0
    assert here.llmctl("down").code == 0
    assert here.llmctl("engine", "upgrade", OLD).code == 3
    assert here.llmctl("engine", "rollback").code == 0
    assert here.llmctl.owned() == []
    assert here.llmctl("up").code == 0
    assert here.serves() == OLD


def test_rollback_from_an_engine_that_broke(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    assert here.llmctl("engine", "upgrade", NEW, *WIDE).code == 0
    here.engines.wrap(here.engines.runner(NEW), before='[[ "$*" == *--model* ]] && exit 1\n')
    for pid in set(here.llmctl.owned()) - {here.llmctl.server}:
        here.llmctl.kill(pid)
    assert here.llmctl("up").code != 0
    back = here.llmctl("engine", "rollback")
    assert back.code == 0, back.err
    assert here.serves() == OLD


def test_a_profile_that_names_its_version_is_obeyed(box: Callable[[str], Box]) -> None:
    here = box(OLD)
    text = Path(here.profile).read_text()
    Path(here.profile).write_text(text + f"engine: {{kind: ollama, version: {OLD}}}\n")
    done = here.llmctl("engine", "upgrade", NEW, "--json")
    assert (done.code, done.error["code"]) == (5, "version_pinned")


@pytest.mark.parametrize("named_by", ["LLMCTL_ENGINE", "PATH"])
def test_an_engine_of_the_users_own_is_not_llmctls(
    llmctl: Llmctl, ready: str, engine: InstalledEngine, tmp_path: Path, named_by: str
) -> None:
    llmctl.environ["LLMCTL_ENGINES_DIR"] = str(tmp_path / "none")
    if named_by == "PATH":
        del llmctl.environ["LLMCTL_ENGINE"]
        llmctl.environ["PATH"] = f"{engine.ollama.parent}:{os.environ['PATH']}"
    assert llmctl("up", ready).code == 0
    done = llmctl("engine", "upgrade", OLD, "--json")
    assert (done.code, done.error["code"]) == (5, "not_managed")
    assert ("engine use" in done.error["hint"]) == (named_by == "PATH")


def test_an_attached_server_is_not_llmctls(llmctl: Llmctl, starter_gguf: Path, ollama_server: StartOllama) -> None:
    profile = llmctl.profile(starter_gguf, port=ollama_server().port)
    assert llmctl("up", profile, "--yes").code == 0
    done = llmctl("engine", "upgrade", OLD, "--json")
    assert (done.code, done.error["code"]) == (5, "not_managed")
