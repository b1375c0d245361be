"""What the machine does while a model answers: how much the server itself computes, and the cards at their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.checks.facts import NotGathered
from llmctl.errors import LlmctlError
from llmctl.system import gpu_detail, vitals

if TYPE_CHECKING:
    from llmctl.core.checks.facts.gpu import Card
    from llmctl.workflows.gather import Given

# User and system time are each counted in whole ticks.
UNCOUNTED_SECONDS = 2 / vitals.TICKS


class AtWork:
    """One answer: `began` at its first token, `look` while it goes on, `server_share` at its end."""

    def __init__(self, given: Given) -> None:
        process = given.of_server.process
        self.server_pid = process.pid if process is not None and process.here else None
        self.has_cards = has_cards(given)
        self.cards: tuple[Card, ...] = ()
        self.before: float | None = None

    def began(self) -> None:
        self.before = self.computed()

    def look(self) -> None:
        if self.has_cards:
            self.cards = gpu_detail.look().cards

    def computed(self) -> float | None:
        """Seconds of processor time of `ollama serve`, its runners not among them."""
        found = vitals.read(self.server_pid) if self.server_pid else None
        return None if found is None else found.cpu_seconds

    def server_share(self, seconds: float) -> float | None:
        """Of the time that the tokens took, at most: what it does but logging is in it."""
        after = self.computed()
        if self.before is None or after is None or seconds <= 0:
            return None
        return min(1.0, (after - self.before + UNCOUNTED_SECONDS) / seconds)


def has_cards(given: Given) -> bool:
    try:
        return bool(given.of_gpu.cards)
    except (NotGathered, LlmctlError):
        return False
