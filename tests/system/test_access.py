"""Whether another user may use a file, by its mode alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmctl.system import access
from llmctl.system.access import PASS, READ, WRITE, Identity

OTHER = 54_321


@pytest.mark.parametrize(
    ("mode", "groups", "wanted", "allowed"),
    [
        (0o755, set(), PASS, True),
        (0o750, set(), PASS, False),
        (0o750, {os.getegid()}, PASS, True),
        # Only the first class that fits counts: a group may have less than everybody.
        (0o705, {os.getegid()}, PASS, False),
        (0o755, set(), WRITE, False),
        (0o777, set(), READ | WRITE, True),
        (0o711, set(), READ, False),
    ],
)
def test_modes(tmp_path: Path, mode: int, groups: set[int], wanted: int, allowed: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert access.may(Identity(OTHER, frozenset(groups)), folder, wanted) is allowed


def test_an_owner_has_what_the_mode_gives_owners_and_no_more(tmp_path: Path) -> None:
    tmp_path.chmod(0o077)
    found = tmp_path.stat()
    tmp_path.chmod(0o700)
    assert access.bits(Identity(found.st_uid, frozenset()), found) == 0
    assert access.bits(Identity(OTHER, frozenset()), found) == 7


def test_an_access_list_makes_it_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda _: [access.ACL])
    assert access.may(Identity(OTHER, frozenset()), tmp_path, READ) is None


def test_a_process_of_ones_own_in_other_groups_is_not_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert access.may(access.myself(), tmp_path, READ) is False
    assert access.may(Identity(os.geteuid(), frozenset({OTHER})), tmp_path, READ) is True


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    for who in (access.myself(), Identity(OTHER, frozenset())):
        with pytest.raises(FileNotFoundError):
            access.may(who, tmp_path / "none", READ)


def test_who_runs_a_process() -> None:
    mine = access.of_process(os.getpid())
    assert mine is not None
    assert (mine.uid, mine.own) == (os.geteuid(), True)
    assert os.getegid() in mine.groups
    assert access.of_process(1 << 30) is None
    assert access.of_name("no-such-user") is None
    root = access.of_name("root")
    assert root is not None
    assert root.uid == 0
