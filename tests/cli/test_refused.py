"""What a refusal says: to who is not root, and to a script that reads lines."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl import cli
from llmctl.core import unit
from llmctl.env import Env
from llmctl.errors import Refused
from llmctl.system import systemd
from llmctl.system.systemd import Installed


@pytest.fixture
def anybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Env:
    """Of who is not root, on a machine with a service."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    env = Env()
    env.__dict__["server"] = SimpleNamespace(service=Installed("system", tmp_path, True, {}))
    return env


def test_a_command_after_two_dashes_stays_whole(anybody: Env) -> None:
    anybody.words = ("yield", "--timeout", "5", "--", "python", "train.py", "--json")
    with pytest.raises(Refused) as refused:
        anybody.require_root("yield")
    assert refused.value.hint == "sudo llmctl yield --timeout 5 -- python train.py --json"


def test_init_names_both_ways(anybody: Env) -> None:
    anybody.stderr = io.StringIO()
    assert cli.main(["init", "cpu"], anybody) == 5
    hint = "hint: sudo llmctl init cpu; as your own: LLMCTL_SCOPE=user llmctl init cpu"
    assert anybody.stderr.getvalue().splitlines()[-1] == hint


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["guard", "--json"], 1),
        (["status", "--watch", "--json"], 1),
        (["doctor", "--json", "--watch"], 1),
        (["guard", "--once", "--json"], 8),
        (["status", "--json"], 8),
    ],
)
def test_in_a_stream_of_lines_it_is_one_line(
    words: list[str], lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise Refused("no", "try", code="other")

    monkeypatch.setattr(cli, "run", refuse)
    assert cli.main(words) == 5
    said = capsys.readouterr().out
    assert json.loads(said)["error"] == {"code": "other", "message": "no", "hint": "try"}
    assert said.count("\n") == lines


def test_ones_own_units_are_ones_own_beside_a_service_of_the_machine(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By who has nothing of their own yet, whom every other verb leads to the machine's service."""
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", tmp_path)
    guard = tmp_path / unit.GUARD
    guard.write_text(f"{systemd.MARK}\n")
    for typed in ("install-service --profile cpu", "uninstall-service --purge"):
        assert cli.main([*typed.split(), "--user", "--dry-run", "--json"], Env()) == 0
        said = capsys.readouterr().out
        assert str(home) in said
        for folder in ("/var/lib/llmctl", "/etc/llmctl", "/run/llmctl", "/var/cache/llmctl"):
            assert folder not in said
