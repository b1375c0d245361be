"""Somebody wants the model away: the guard keeps its hands off until they are done."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.service.faults.served import Served, fault
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model")


@fault(
    what="a person holds the guard, and the model dies",
    how="`llmctl guard --hold`, then `kill -9` of llama-server",
    happens="`held`: nothing is done until `llmctl guard --resume`",
    again="one look and one load after the end of the hold",
)
def test_held(served: Served) -> None:
    before, since = served.runner, len(served.events())
    assert served.llmctl("guard", "--hold").code == 0
    served.until("the guard to be held", lambda: served.note.get("reason") == "held")
    served.container.signal(before, signal.SIGKILL)
    served.until("the runner's end", lambda: not served.runners)
    served.says("held")
    assert served.steps(since) == []
    assert not served.ready
    with served.away("a hold", lambda: served.runners not in ([], [before])):
        assert served.llmctl("guard", "--resume").code == 0
    assert served.steps(since) == [("not_running", "load")]


@fault(
    what="a person ends the service",
    how="`llmctl down`",
    happens="engine and guard stop and stay stopped; `llmctl up` starts and proves everything",
    again="`llmctl up`",
)
def test_down(served: Served) -> None:
    assert served.llmctl("down").code == 0
    served.units({ENGINE_UNIT: "inactive", GUARD_UNIT: "inactive"})
    assert served.processes("llama-server") == {}
    assert not served.resident
    with served.away("down", lambda: True):
        assert served.llmctl("up").code == 0


@fault(
    what="a command is given the GPU",
    how="`llmctl yield -- sh -c …`",
    happens="the model is unloaded, the guard is `leased`; when the command has ended it is loaded and proved",
    again="one look and one load after the end of the command",
)
def test_yield(served: Served) -> None:
    since = len(served.events())
    program = (
        "until grep -q leased /run/llmctl/guard.json; do sleep 0.1; done; ! grep -q llama-server /proc/[0-9]*/comm"
    )
    with served.away("yield", lambda: True):
        done = served.llmctl("yield", "--", "sh", "-c", program)
        assert done.code == 0, done.err
    assert "leased" in [event.get("REASON") for event in served.events(since)]


@fault(
    what="a command that was given the GPU dies, and llmctl with it",
    how="`kill -9` of `llmctl yield` and its command",
    happens="the guard sees that the lease died, ends it and loads the model",
    again="one look and one load",
)
def test_yield_is_killed(served: Served) -> None:
    engine_before = served.server
    holder = subprocess.Popen(
        ["nsenter", "--target", str(served.container.init), "--all", "llmctl", "yield", "--", "sleep", "600"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        served.until("the lease", lambda: served.note.get("reason") == "leased")
        served.until("the runner's end", lambda: not served.runners)
        with served.away("kill -9 of yield", lambda: served.runners != []):
            pids = [*served.processes("sleep"), *served.processes("llmctl")]
            mine = [pid for pid in pids if pid not in served.pids(GUARD_UNIT)]
            served.container.run("sh", "-c", 'kill -9 "$@"', "sh", *map(str, mine))
    finally:
        holder.wait(timeout=30)
    assert served.server == engine_before
