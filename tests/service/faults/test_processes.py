"""A process of the service dies, or hangs."""

from __future__ import annotations

import signal

import pytest

from tests.service.faults.served import Served, fault
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model")


@fault(
    what="the runner is killed",
    how="`kill -9` of llama-server",
    happens="`not_running`: the guard loads the model again",
    again="one look and one load",
)
def test_the_runner_is_killed(served: Served) -> None:
    before, since = served.runner, len(served.events())
    with served.away("kill -9 of llama-server", lambda: served.runners not in ([], [before])):
        served.container.signal(before, signal.SIGKILL)
    assert served.steps(since) == [("not_running", "load")]


@fault(
    what="the server is killed",
    how="`kill -9` of ollama",
    happens="systemd ends its runner with it and starts it anew; the guard finds another server without the model and "
    "loads it",
    again="the start of the engine, one look and one load",
)
def test_the_server_is_killed(served: Served) -> None:
    before, runner, since = served.server, served.runner, len(served.events())
    with served.away("kill -9 of ollama", lambda: served.runners not in ([], [runner])):
        served.container.signal(before, signal.SIGKILL)
    assert served.server != before
    assert [action for _, action in served.steps(since)] == ["load"]


@fault(
    what="the guard is killed",
    how="`kill -9` of the guard",
    happens="systemd starts it anew; the model stays where it is and is proved again",
    again="never away; the start of the guard and one look until somebody watches again",
)
def test_the_guard_is_killed(served: Served) -> None:
    (before,), runner = served.pids(GUARD_UNIT), served.runner
    with served.away("kill -9 of the guard", lambda: served.pids(GUARD_UNIT) not in ([], [before])):
        served.container.signal(before, signal.SIGKILL)
    assert served.runner == runner


@fault(
    what="server, runner and guard are killed at once",
    how="one `kill -9` for all three",
    happens="systemd starts both units anew; the guard loads the model",
    again="the start of engine and guard, one look and one load",
)
def test_everything_is_killed(served: Served) -> None:
    pids = {served.server, served.runner, *served.pids(GUARD_UNIT)}
    assert len(pids) == 3

    def replaced() -> bool:
        found = [*served.pids(ENGINE_UNIT, "ollama"), *served.runners, *served.pids(GUARD_UNIT)]
        return len(found) == 3 and not pids & set(found)

    with served.away("kill -9 of all three", replaced):
        served.container.run("sh", "-c", 'kill -9 "$@"', "sh", *map(str, pids))


@fault(
    what="the runner hangs",
    how="SIGSTOP of llama-server",
    happens="`stuck`: the guard ends the runner and loads the model again",
    again="six looks without progress, the end of the runner, one look and one load",
)
def test_the_runner_hangs(served: Served) -> None:
    before, since = served.runner, len(served.events())
    with served.away("SIGSTOP of llama-server", lambda: served.runners not in ([], [before])):
        served.container.signal(before, signal.SIGSTOP)
    assert served.steps(since)[0] == ("stuck", "end_runner")
    assert {action for _, action in served.steps(since)} == {"end_runner", "load"}


@fault(
    what="the server is killed, and systemd does not start it anew",
    how="`Restart=no` in a drop-in, then `kill -9` of ollama; so a limit of starts ends too",
    happens="the unit has failed: `not_running`, `degraded`, with systemd's word and where to look; the guard starts "
    "nothing",
    again="`llmctl up`",
)
def test_the_unit_has_failed(served: Served) -> None:
    served.add(ENGINE_UNIT, "restart", "Restart=no")
    since = len(served.events())
    try:
        served.container.signal(served.server, signal.SIGKILL)
        served.until("word of it", lambda: "has failed: signal" in served.words)
        assert (served.note["reason"], served.note["degraded"]) == ("not_running", True)
        served.says("sudo llmctl logs tells why; sudo llmctl up starts it")
    finally:
        served.take_away(ENGINE_UNIT, "restart")
    assert served.steps(since) == []
    with served.away("a unit that has failed", lambda: True):
        assert served.llmctl("up").code == 0


@fault(
    what="the server hangs",
    how="SIGSTOP of ollama",
    happens="`stuck`: the guard ends the server, systemd starts it anew, the guard loads the model",
    again="six looks without progress, the end and the start of the engine, one look and one load",
)
def test_the_server_hangs(served: Served) -> None:
    before, since = served.server, len(served.events())
    with served.away("SIGSTOP of ollama", lambda: served.pids(ENGINE_UNIT, "ollama") not in ([], [before])):
        served.container.signal(before, signal.SIGSTOP)
    assert served.steps(since)[0] == ("stuck", "restart_engine")


@fault(
    what="the guard hangs",
    how="SIGSTOP of the guard, with a watchdog of 4 s",
    happens="systemd's watchdog ends it and starts it anew; the model stays where it is",
    again="never away; WatchdogSec (90 s) and the start of the guard until somebody watches again",
)
def test_the_guard_hangs(served: Served) -> None:
    served.add(GUARD_UNIT, "watchdog", "WatchdogSec=4")
    try:
        served.calm()
        (before,), runner = served.pids(GUARD_UNIT), served.runner
        with served.away("SIGSTOP of the guard", lambda: served.pids(GUARD_UNIT) not in ([], [before])):
            served.container.signal(before, signal.SIGSTOP)
        assert served.runner == runner
        said = served.container.run("journalctl", "--no-pager", "--unit", GUARD_UNIT, "--lines=200").stdout
        assert "atchdog" in said
    finally:
        served.take_away(GUARD_UNIT, "watchdog")
