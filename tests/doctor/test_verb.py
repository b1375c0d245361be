"""How doctor is asked: its options, its exit codes, and what --fix does and does not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.doctor.conftest import Patient, ids

pytestmark = pytest.mark.real("ollama", "model")


def test_the_list_names_every_check_and_looks_at_nothing(patient: Patient) -> None:
    listed = patient("doctor", "--list", "--json").json["checks"]
    assert {"server.not-running", "engine.none"} <= {check["id"] for check in listed}
    text = patient("doctor", "--list").out
    assert "server.not-running" in text
    assert patient("doctor", "server", "--list", "--json").json["checks"][0]["id"].startswith("server.")


def test_where_a_finding_says_more_there_is_more(patient: Patient) -> None:
    """Nobody who installed llmctl has docs/checks.md: what it says of a check is shown in the terminal."""
    done = patient("doctor", "--profile", patient.profile)
    more = next(line.split() for line in done.out.splitlines() if line.split()[:1] == ["more"])
    assert more[1:] == ["llmctl", "doctor", "--list", "server.not-running"]
    shown = " ".join(patient(*more[2:]).out.split())
    assert shown.startswith("server.not-running: The server is not running (error)")
    assert "Nothing listens at the profile's address" in shown
    assert "Not told while one of these has a finding at least as bad: profile.invalid," in shown


def test_a_check_that_is_none_is_refused(patient: Patient) -> None:
    done = patient("doctor", "serv", "--json")
    assert (done.code, done.error["hint"]) == (4, "llmctl doctor --list")
    for two in (["--json", "--markdown"], ["--watch", "--fix"], ["--watch", "--deep"], ["--explain", "--bundle", "x"]):
        assert patient("doctor", *two).code == 2, two


def test_a_named_check_that_a_cause_hides_comes_with_its_cause(patient: Patient) -> None:
    patient.cli.environ["LLMCTL_ENGINE"] = "/nowhere/ollama"
    report = patient.report("server", "--profile", patient.profile)
    assert ids(report) == ["engine.none"]


def test_what_was_found_deep_is_looked_at_as_deep_after_a_fix(healthy: Patient) -> None:
    """The weights are damaged, which only hashing shows, and the server is gone, which is what --fix mends."""
    digest = healthy("list", "--json").json["models"][0]["weights_digest"]
    blob = Path(healthy.cli.environ["OLLAMA_MODELS"]) / "blobs" / digest.replace(":", "-")
    content = bytearray(blob.read_bytes())
    blob.unlink()
    content[-1] ^= 1
    blob.write_bytes(content)
    assert "store.damaged" in ids(healthy.report("--deep"))
    done = healthy("doctor", "--deep", "--fix", "--yes", "--json")
    assert done.code == 5
    assert "store.damaged" in ids(done.json)


def test_errors_are_five_and_a_named_check_is_the_only_one(healthy: Patient) -> None:
    for pid in healthy.cli.owned():
        healthy.cli.kill(pid)
    done = healthy("doctor")
    assert done.code == 5
    assert "server.not-running" in done.out
    assert "llmctl up" in done.out
    assert healthy("doctor", "engine").code == 0


def test_warnings_are_zero_and_five_when_strict(healthy: Patient, tmp_path: Path) -> None:
    """The quantizer is missing beside an engine that serves all the same."""
    ollama = Path(healthy.cli.environ["LLMCTL_ENGINE"])
    copy = tmp_path / "engine"
    subprocess.run(["cp", "-al", ollama.parent.parent, copy], check=True)
    (copy / "lib" / "ollama" / "llama-quantize").unlink()
    assert healthy("down").code == 0
    healthy.cli.environ["LLMCTL_ENGINE"] = str(copy / "bin" / "ollama")
    healthy.up()
    assert healthy("doctor").code == 0
    assert healthy("doctor", "--strict").code == 5
    assert ids(healthy.report()) == ["engine.no-llama-quantize"]


def test_markdown_has_the_command_in_a_block(patient: Patient) -> None:
    text = patient("doctor", "--markdown", "--profile", patient.profile).out
    assert text.startswith("**llmctl doctor**")
    assert "```sh\nllmctl up" in text


def test_fix_shows_what_it_runs_and_looks_again(healthy: Patient) -> None:
    os.kill(healthy.cli.server, signal.SIGTERM)
    assert ids(healthy.report())[:1] == ["server.not-running"]
    asked = healthy("doctor", "--fix")
    assert asked.code == 2, "without a terminal nobody can be asked"
    assert "llmctl up" in asked.err
    fixed = healthy("doctor", "--fix", "--yes", "--json")
    assert fixed.code == 0, fixed.err
    assert [(one["command"].partition(" --")[0], one["code"]) for one in fixed.json["fixed"]] == [("llmctl up", 0)]
    assert fixed.json["findings"] == []
    assert healthy("status", "--quiet").code == 0


def test_fix_with_nothing_to_fix_changes_nothing(healthy: Patient) -> None:
    before = healthy.cli.owned()
    done = healthy("doctor", "--fix", "--json")
    assert (done.code, done.json["fixed"]) == (0, [])
    assert healthy.cli.owned() == before


def test_watch_is_one_document_a_line_and_sees_the_change(healthy: Patient) -> None:
    watching = healthy.cli.start("doctor", "--watch", "--json")
    assert watching.stdout is not None
    try:
        assert json.loads(watching.stdout.readline())["verdict"] == "clean"
        for pid in healthy.cli.owned():
            os.kill(pid, signal.SIGKILL)
        while (found := json.loads(watching.stdout.readline()))["verdict"] == "clean":
            pass
        assert found["findings"][0]["id"] == "server.not-running"
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    assert watching.returncode == 130
