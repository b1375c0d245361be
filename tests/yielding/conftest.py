"""yield is seen on a real engine with the real starter model, as its user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.conftest import Llmctl, llmctl, prepared, ready

__all__ = ["llmctl", "prepared", "ready"]


@pytest.fixture
def up(llmctl: Llmctl, ready: str) -> str:
    """A profile that is up: its model is resident and proved."""
    done = llmctl("up", ready)
    assert done.code == 0, done.err
    return ready


@pytest.fixture
def runtime(home: Path) -> Path:
    return home / ".local/state/llmctl/run"
