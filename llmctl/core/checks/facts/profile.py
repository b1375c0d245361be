"""The declared state, and what is pinned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile


@dataclass(frozen=True)
class ProfileFacts:
    """`profile` None: it could not be read, and `problem` says why, with the `hint` that goes with it.

    `lock_problem`: the same of the lock.
    """

    profile: Profile | None
    problem: str = ""
    hint: str = ""
    lock: Lock | None = None
    lock_path: str = ""
    lock_problem: str = ""
