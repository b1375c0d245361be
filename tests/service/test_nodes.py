"""Which of the GPUs' device files a user may open, as `status` compares them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmctl.system import access
from llmctl.system.access import Identity, myself
from llmctl.workflows import surroundings

OTHER = 54_321


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setattr(surroundings, "DEVICES", tmp_path)
    for name, mode in (("nvidia0", 0o666), ("nvidia1", 0o600)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    return str(tmp_path / "nvidia0"), str(tmp_path / "nvidia1")


def test_each_is_judged_for_who_asks_and_for_another(nodes: tuple[str, str]) -> None:
    assert surroundings.open_nodes(myself()) == nodes
    assert surroundings.open_nodes(Identity(OTHER, frozenset())) == nodes[:1]


def test_an_access_list_of_one_makes_it_unknown(nodes: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda path: [access.ACL] if str(path) == nodes[1] else [])
    assert surroundings.open_nodes(Identity(OTHER, frozenset())) is None
    assert surroundings.open_nodes(myself()) == nodes
