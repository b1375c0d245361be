"""What `yield` says beside its command, all of it on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.errors import LlmctlError


def time_was_up(seconds: float | None) -> str:
    return f"the command was ended after {seconds:g} s"


def not_back(problem: LlmctlError) -> str:
    """The command failed, so its status is returned; that the model is away must still be said."""
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"the model is not back: {problem.message}{hint}"
