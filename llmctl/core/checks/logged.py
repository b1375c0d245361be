"""What a line that is not in the log means: nothing happened, or nobody can tell."""

from __future__ import annotations

from llmctl.core.checks.facts.log import LogFacts, LogLine
from llmctl.core.checks.finding import Unknown


def unsaid(log: LogFacts) -> Unknown | None:
    """Of a line that can come at any time: the last hour is what counts."""
    return None if log.has_the_hour else Unknown("what can be read of the log does not reach back for an hour")


def unsaid_at_start(log: LogFacts) -> Unknown | None:
    """Of a line that the server writes once, when it starts."""
    return (
        None if log.has_the_start else Unknown("what can be read of the log does not reach back to the server's start")
    )


def unsaid_at_load(log: LogFacts, weights_digest: str | None) -> Unknown | None:
    """Of a line that the server writes when it loads a model."""
    if log.since_start or log.last_load(weights_digest) is not None:
        return None
    return Unknown("what can be read of the log does not reach back to the load of the model")


def since(found: LogLine) -> str:
    """Which lines were counted: those of the last hour, or where there are none, all."""
    if found.recent is None:
        return " since the server's start"
    return " within the last hour" if found.recent else " since the server's start, none within the last hour"
