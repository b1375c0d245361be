"""A hold and a lease: what pauses the guard, and for how long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.errors import Refused
from llmctl.system import pauses

HOLDER = """
import sys
from pathlib import Path
from llmctl.system import pauses
with pauses.lease(Path(sys.argv[1]), "train.py"):
    print("taken", flush=True)
    sys.stdin.read()
"""


def test_a_hold_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    assert pauses.held(tmp_path) is None
    pauses.hold(tmp_path, "down")
    found = pauses.held(tmp_path)
    assert found is not None
    assert (found.by, found.until_seconds) == ("down", None)
    assert pauses.release(tmp_path)
    assert pauses.held(tmp_path) is None
    assert not pauses.release(tmp_path)


def test_a_hold_ends_when_its_time_is_up(tmp_path: Path) -> None:
    pauses.hold(tmp_path, "guard --hold", seconds=3600)
    assert pauses.held(tmp_path) is not None
    pauses.hold(tmp_path, "guard --hold", seconds=0)
    assert pauses.held(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"by": 3}', '{"by": "down", "since_seconds": "x"}'])
def test_a_damaged_note_holds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / pauses.HOLD).write_text(content)
    (tmp_path / pauses.LEASE).write_text(content)
    assert pauses.held(tmp_path) is None
    assert pauses.leased(tmp_path) is None


def test_a_lease_lives_as_long_as_its_process_however_that_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == "taken\n"
        found = pauses.leased(tmp_path)
        assert found is not None
        assert (found.command, found.pid, found.alive) == ("train.py", holder.pid, True)
        with (
            pytest.raises(Refused, match=f"train.py .pid {holder.pid}. has the GPU already"),
            pauses.lease(tmp_path, "x"),
        ):
            pass
        pauses.bury(tmp_path)
        assert pauses.leased(tmp_path) is not None
        holder.kill()
    dead = pauses.leased(tmp_path)
    assert dead is not None
    assert not dead.alive
    pauses.bury(tmp_path)
    assert pauses.leased(tmp_path) is None


def test_a_lease_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with pauses.lease(tmp_path, "train.py") as mine:
        assert mine.alive
    assert pauses.leased(tmp_path) is None
