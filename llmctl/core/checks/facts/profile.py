"""The declared state, and what is pinned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile


@dataclass(frozen=True)
class ProfileFacts:
    """`profile` None: it could not be read, and `problem` says why.

    `lock_problem`: the same of the lock, with the `lock_hint` that goes with it.
    """

    profile: Profile | None
    problem: str = ""
    lock: Lock | None = None
    lock_path: str = ""
    lock_problem: str = ""
    lock_hint: str = ""
