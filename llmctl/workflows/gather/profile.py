"""The profile and its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.errors import LlmctlError
from llmctl.library import lock_file

if TYPE_CHECKING:
    from llmctl.workflows.gather import Given


def gather(given: Given) -> ProfileFacts:
    try:
        profile = given.find_profile()
    except LlmctlError as error:
        return ProfileFacts(None, error.message)
    path = given.lock_path(profile)
    try:
        return ProfileFacts(profile, lock=lock_file.read(path), lock_path=str(path))
    except LlmctlError as error:
        return ProfileFacts(profile, lock_path=str(path), lock_problem=error.message, lock_hint=error.hint or "")
