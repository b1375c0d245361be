"""What a long step says while it runs, and how it asks before something large.

Services and workflows call these; `output` draws them. Neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

StepState = Literal["running", "done", "skipped", "failed"]


@dataclass(frozen=True)
class Step:
    """One state of one step. A step with the same `id` replaces what was shown of it before.

    `completed` and `total` count `unit`s ("bytes" or a plural noun such as "files"); None means unknown.
    """

    id: str
    title: str
    state: StepState = "running"
    detail: str = ""
    completed: int | None = None
    total: int | None = None
    unit: str = "bytes"


Progress = Callable[[Step], None]

# Returns when the user agrees; raises ConsentNeeded when nobody can be asked, Refused when the answer is no.
Consent = Callable[[str], None]


def silent(_: Step) -> None:
    """A Progress that shows nothing."""
