"""What `guard` looks like."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from llmctl.output.text import pairs
from llmctl.workflows.telling import Event, sentence

if TYPE_CHECKING:
    from llmctl.workflows.findings import GuardResult
    from llmctl.workflows.holding import HoldResult


def event_line(event: Event) -> str:
    """One line of the foreground: the time of day, and what the journal's MESSAGE says."""
    return f"{datetime.fromtimestamp(event.at_seconds):%H:%M:%S} {sentence(event)}"


def guard_lines(result: GuardResult, width: int) -> list[str]:
    lines = []
    for model in result.models:
        lines += pairs(
            [
                (model.model, f"{model.reason}: {model.words}"),
                ("expected", model.expected if model.observed else ""),
                ("observed", model.observed),
                ("helps", "" if model.good else model.remedy),
            ],
            width,
        )
    return lines


def hold_lines(result: HoldResult, _: int) -> list[str]:
    if result.held:
        until = f" until {datetime.fromtimestamp(result.until_seconds):%H:%M:%S}" if result.until_seconds else ""
        return [f"the guard keeps its hands off{until}. End that: llmctl guard --resume"]
    return ["the guard is at work again" if result.changed else "nothing held the guard"]
