"""The one step that the guard has under way."""

from __future__ import annotations

import threading
import time

from llmctl.core.guard.facts import Errand
from llmctl.errors import NotFound
from llmctl.workflows.mending import Errands, Outcome


def taken(errands: Errands) -> Outcome | None:
    """What the loop gets once the step has ended."""
    assert errands.finished.wait(10)
    return errands.ended()


def test_an_outcome_that_comes_while_the_loop_takes_one_is_not_lost() -> None:
    """The step's last reading of the clock is when it writes down how it ended: just then the loop looks for it."""
    main = threading.get_ident()

    def clock() -> float:
        if threading.get_ident() != main:
            assert errands.ended() is None
        return time.monotonic()

    errands = Errands(clock)
    errands.start("probe", "qwen", lambda: None)
    outcome = taken(errands)
    assert outcome is not None
    assert (outcome.action, outcome.model, outcome.error) == ("probe", "qwen", None)
    assert errands.current is None


def test_how_it_failed_is_told_and_what_nobody_waits_for_is_not() -> None:
    errands, go = Errands(time.monotonic), threading.Event()

    def waits() -> None:
        go.wait(10)

    errands.start("load", "qwen", waits)

    def fails() -> None:
        raise NotFound("no such model")

    errands.start("end_runner", "qwen", fails)
    assert errands.current == Errand("end_runner", errands.current.since_seconds if errands.current else 0.0, "qwen")
    outcome = taken(errands)
    assert outcome is not None
    assert (outcome.action, outcome.error) == ("end_runner", "no such model")
    go.set()
    assert taken(errands) is None
