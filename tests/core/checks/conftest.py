"""Every remedy that a table of these tests leads to can be run as it is typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmctl.core.checks.finding import Remedy
from tests.doctor.remedies import parses


@pytest.fixture(autouse=True)
def every_remedy_parses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[str] = []
    plain = Remedy.__init__

    def recorded(self: Remedy, *arguments: Any, **named: Any) -> None:
        plain(self, *arguments, **named)
        made.extend(self.commands)

    monkeypatch.setattr(Remedy, "__init__", recorded)
    yield
    for command in made:
        parses(command)
