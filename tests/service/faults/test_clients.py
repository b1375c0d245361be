"""What clients of the server do to the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.service.faults.served import INTERVAL_SECONDS, RIVAL, Served, fault, guard_command
from tests.service.installing import GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model")

# Between two looks of a guard that is to give up, and its window.
SLOWLY_SECONDS = 1.5
WINDOW_SECONDS = 120 * SLOWLY_SECONDS


def replaced(served: Served, before: int) -> Callable[[], bool]:
    """Another runner has the model, and nothing else is loaded."""
    return lambda: served.loaded() == [served.alias] and served.runners not in ([], [before])


@fault(
    what="a client unloads the model",
    how="a request with `keep_alive: 0`",
    happens="`evicted`: the guard loads the model again",
    again="one look and one load",
)
def test_a_client_unloads_it(served: Served) -> None:
    before, since = served.runner, len(served.events())
    with served.away("keep_alive: 0", replaced(served, before)):
        served.generate(keep_alive=0)
    assert {action for _, action in served.steps(since)} == {"load"}


@fault(
    what="a client loads another model",
    how="a request for other weights, where one model may be loaded at a time",
    happens="`evicted`, with the other's name; once that is idle, the guard loads the model again",
    again="two looks in which the other is idle, one look and one load",
)
def test_a_client_loads_another_model(served: Served) -> None:
    rival = served.make_rival()
    before, since = served.runner, len(served.events())
    with served.away("a request for another model", replaced(served, before)):
        served.generate(rival)
    assert ("evicted", "load") in served.steps(since)
    # It is named where a look saw it; one between the two sees neither model.
    assert any("was unloaded" in event["MESSAGE"] or RIVAL in event["MESSAGE"] for event in served.events(since))


@fault(
    what="a client asks with another context",
    how="a request with `num_ctx` 1024",
    happens="the client gets its answer; `wrong_context`: the guard then loads the model as the profile says",
    again="one look and one load",
)
def test_a_client_asks_with_another_context(served: Served) -> None:
    since = len(served.events())

    def as_before() -> bool:
        return ("wrong_context", "load") in served.steps(since)

    with served.away("num_ctx 1024", as_before):
        assert served.generate(tokens=3, options={"num_ctx": 1024})["eval_count"] == 3
    (model,) = served.api("/api/ps")["models"]
    assert model["context_length"] == 2048


@fault(
    what="a client removes the model",
    how="`ollama rm` of the alias",
    happens="`wrong_digest`: the guard makes the alias again out of the file that the profile names, downloads nothing",
    again="one look, one hash of the file and one load",
)
def test_a_client_removes_the_model(served: Served) -> None:
    since = len(served.events())
    with served.away("ollama rm", lambda: ("wrong_digest", "load") in served.steps(since)):
        served.api("/api/delete", {"model": served.alias}, method="DELETE")
    assert served.alias in {model["name"] for model in served.api("/api/tags")["models"]}


@fault(
    what="a client keeps evicting the model",
    how="a request for other weights whenever the model is back",
    happens="the guard waits longer each time, at most 6 loads in 120 looks, then gives up: `degraded`, "
    "with the name of the other model, its context and how often; `llmctl up` brings it back at once",
    again="after the window of 120 looks, or `llmctl up`",
)
@pytest.mark.timeout(600)
def test_a_client_keeps_evicting_it(served: Served) -> None:
    rival, done = served.make_rival(), threading.Event()
    # Its pauses are counted in looks and its loads are not: with this one the window holds six loads of 14 s.
    served.add(GUARD_UNIT, "interval", *guard_command(SLOWLY_SECONDS))
    try:
        served.calm()
        since = len(served.events())

        def evict() -> None:
            while not done.wait(0.2):
                if served.loaded() == [served.alias]:
                    served.generate(rival)

        fighting = threading.Thread(target=evict)
        fighting.start()
        try:
            served.until("the guard to give up", lambda: served.note.get("degraded"), 300)
            told = [event for event in served.events(since) if event.get("DEGRADED") == "1"][-1]
            assert f"{RIVAL} (context 2048) took its place" in told["REMEDY"]
            # At once, and while the other is in use too: for some looks, and no longer than the window.
            began = time.monotonic()
            while time.monotonic() < began + 5:
                served.generate(rival, tokens=3)
                assert served.note["degraded"]
                # How often is said too, and may have become more since.
                served.until("STATUS to name the client", lambda: f"{RIVAL} (context 2048) took" in served.words, 10)
        finally:
            done.set()
            fighting.join()
        loads = [
            float(event["__REALTIME_TIMESTAMP"]) / 1e6
            for event in served.events(since)
            if (event.get("REASON"), event.get("ACTION")) == ("evicted", "load")
        ]
        assert all(sum(one <= other < one + WINDOW_SECONDS for other in loads) <= 6 for one in loads)
        assert served.guard["ActiveState"] == "active"
        with served.away("a client that kept evicting it", lambda: served.loaded() == [served.alias]):
            assert served.llmctl("up").code == 0
    finally:
        served.add(GUARD_UNIT, "interval", *guard_command(INTERVAL_SECONDS))
