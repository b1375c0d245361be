"""Facts that do not come: they are unknown, and the others are there."""

from __future__ import annotations

import threading

import pytest

from llmctl.env import Env
from llmctl.workflows import gather
from llmctl.workflows.gather import host, speed


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
