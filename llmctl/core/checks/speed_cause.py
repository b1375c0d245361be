"""A cause of a slow answer with its share of the time, and how the causes are told together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.core.memory.token_time import Span

TOKEN, FIRST = "of a token's time", "of the time until the first token"
# A smaller share is not worth a command.
MATTERS = 0.05
NEXT_TO_NOTHING = 0.001


@dataclass(frozen=True)
class Cause:
    """`share` None: not known, and `detail` says why. `commands` begin the remedy where it is the largest; without any
    it is no fault but what every answer takes."""

    words: str
    share: Span | None
    detail: str = ""
    commands: tuple[str, ...] = ()

    @property
    def middle(self) -> float:
        return 0.0 if self.share is None else (self.share.least + self.share.most) / 2


def ordered(causes: Sequence[Cause]) -> tuple[Cause, ...]:
    """The largest first, then what every answer takes, then those of unknown share."""
    return tuple(sorted(causes, key=lambda cause: (cause.share is None, not cause.commands, -cause.middle)))


def told(causes: Sequence[Cause], unit: str) -> tuple[str, ...]:
    """A line for each, and one for the rest."""
    shares = [cause.share for cause in causes if cause.share is not None]
    lines = tuple(line(cause, unit) for cause in causes)
    if not any(cause.commands for cause in causes):
        lines = (*lines, "none of the causes that doctor knows was seen")
    if not shares:
        return lines
    rest = 1 - sum(share.most for share in shares)
    if rest < MATTERS / 10:
        return (*lines, "together these can explain all of it")
    least = "at least " if any(share.least < share.most for share in shares) else ""
    return (*lines, f"{least}{percent(rest)} {unit} is not explained by these shares")


def line(cause: Cause, unit: str) -> str:
    if cause.share is None:
        return f"{cause.words}: its share is not known: {cause.detail}"
    return f"{cause.words}: {words(cause.share)} {unit}" + (f" ({cause.detail})" if cause.detail else "")


def largest(causes: Sequence[Cause]) -> Cause | None:
    """The cause whose remedy comes first, where its share is known and worth it."""
    known = [cause for cause in causes if cause.commands and cause.middle >= MATTERS]
    return max(known, key=lambda cause: cause.middle, default=None)


def words(share: Span) -> str:
    least, most = percent(share.least), percent(share.most)
    if least == most or most.startswith("less"):
        return most
    return f"at most {most}" if share.least < NEXT_TO_NOTHING else f"{least.removesuffix(' %')} to {most}"


def percent(share: float) -> str:
    """Of less than a hundredth one digit more; of next to nothing that it is that."""
    if 0 < share < NEXT_TO_NOTHING:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
