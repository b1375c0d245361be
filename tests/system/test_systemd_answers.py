"""What systemctl says of several units, and what a manager is that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.errors import LlmctlError
from llmctl.system.systemd import Manager

SAID = """cat <<'END'
LoadState=loaded
ActiveState=active
SubState=running
Result=success
StatusText=resident: a=b
MainPID=7
NRestarts=2

LoadState=not-found
ActiveState=inactive
SubState=dead
Result=success
MainPID=0
END
"""


def manager(folder: Path, script: str) -> Manager:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    return Manager("system", {"PATH": f"{folder}:/usr/bin:/bin"})


def test_each_unit_has_its_own_state(tmp_path: Path) -> None:
    states = manager(tmp_path, SAID).states("one.service", "two.service")
    one, two = states["one.service"], states["two.service"]
    assert (one.active, one.status, one.pid, one.restarts) == ("active", "resident: a=b", 7, 2)
    assert (two.load, two.active, two.status, two.pid, two.restarts) == ("not-found", "inactive", "", 0, 0)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Failed to connect to bus' >&2; exit 1", "Failed to connect to bus"),
        (SAID, "systemd does not answer"),
        ("true", "systemd does not answer"),
    ],
)
def test_a_manager_that_does_not_answer_for_each_is_an_error(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(LlmctlError, match=words):
        manager(tmp_path, script).states("one.service", "two.service", "three.service")
