"""The words of doctor: a check, what it finds, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llmctl.core.checks.facts import Facts

Severity = Literal["error", "warning", "info"]
# In the order in which they are shown.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Remedy:
    """What mends it, in words, and the exact commands. `safe`: doctor --fix may run them, which are llmctl's own then,
    change nothing that the profile does not ask for, and lose nothing."""

    text: str
    commands: tuple[str, ...] = ()
    safe: bool = False


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `subject` is the model, card, unit or file that it is about.

    `severity` None: the check's own.
    """

    observed: str
    expected: str
    remedy: Remedy
    evidence: tuple[str, ...] = ()
    subject: str = ""
    severity: Severity | None = None


@dataclass(frozen=True)
class Unknown:
    """The check could not tell, and why. Never the same as ok."""

    why: str


Judgement = Finding | Sequence[Finding] | Unknown | None


@dataclass(frozen=True)
class Check:
    """`after` are checks whose findings explain this one's: it is not told of while one of them has any, unless it is
    the worse one (causes.py).

    `about` says in docs/checks.md what is looked at, why it matters, and where the fact is from. `deep`: only with
    --deep.
    """

    id: str
    title: str
    severity: Severity
    about: str
    judge: Callable[[Facts], Judgement]
    after: tuple[str, ...] = ()
    deep: bool = False

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]
