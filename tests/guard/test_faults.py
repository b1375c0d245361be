"""What happens to the resident model, and what the guard does about it, on a real engine with a real model."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.guard.conftest import RunningGuard, StartGuard, until
from tests.lifecycle.conftest import Llmctl

pytestmark = pytest.mark.real("ollama", "model")


LONG = 120


class Api:
    """The engine's own API, as any client uses it."""

    def __init__(self, cli: Llmctl) -> None:
        self.cli = cli
        status = cli("status", "--json").json
        self.port = int(status["base_url"].rpartition(":")[2])
        self.alias: str = status["models"][0]["alias"]

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=280)
        try:
            connection.request(method, path, json.dumps({"stream": False} | body))
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return json.loads(content) if content else {}
        finally:
            connection.close()

    def loaded(self) -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/api/ps")
            return list(json.loads(connection.getresponse().read())["models"])
        finally:
            connection.close()

    @property
    def server(self) -> int:
        return self.cli.server

    def runners(self) -> list[int]:
        owned = self.cli.owned()
        return [pid for pid in owned if b"llama-server\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @property
    def runner(self) -> int:
        (found,) = self.runners()
        return found


@pytest.fixture
def api(guarded: RunningGuard) -> Api:
    return Api(guarded.cli)


def resident_again(guard: RunningGuard, api: Api, without: int | None = None) -> None:
    """Resident, proved, and the guard and `status` agree about it; without the process `without`, which a fault hit."""

    def good() -> bool:
        # The note that tells of a fault is written after the event that does.
        if without in guard.cli.owned():
            return False
        note = guard.note
        return bool(note and note.ready) and guard.cli("status", "--quiet").code == 0

    until(f"resident again; {guard.summary}", good)
    assert [model["name"] for model in api.loaded()] == [api.alias]
    assert len(api.runners()) == 1


def test_a_killed_runner_is_loaded_again(guarded: RunningGuard, api: Api) -> None:
    before = api.runner
    guarded.cli.kill(before)
    assert guarded.told("not_running", "load")["model"] == "starter"
    resident_again(guarded, api, without=before)
    assert api.runner != before


def test_a_killed_server_is_started_again_and_its_orphan_ends(guarded: RunningGuard, api: Api) -> None:
    server, runner = api.server, api.runner
    guarded.cli.kill(server)
    guarded.told("not_running", "restart_engine")
    resident_again(guarded, api)
    assert api.server != server
    assert runner not in guarded.cli.owned()


def test_everything_killed_at_once_but_the_guard(guarded: RunningGuard, api: Api) -> None:
    for pid in (api.server, api.runner):
        os.kill(pid, signal.SIGKILL)
    guarded.told("not_running", "restart_engine")
    resident_again(guarded, api)


def test_a_stopped_runner_is_stuck_and_is_replaced(guarded: RunningGuard, api: Api) -> None:
    before = api.runner
    os.kill(before, signal.SIGSTOP)
    told = guarded.told("stuck", "end_runner")
    assert "stopped" in told["words"]
    resident_again(guarded, api, without=before)
    assert api.runner != before


def test_a_stopped_server_is_replaced(guarded: RunningGuard, api: Api) -> None:
    before = api.server
    os.kill(before, signal.SIGSTOP)
    guarded.told("stuck", "restart_engine")
    resident_again(guarded, api, without=before)
    assert api.server != before


def test_a_client_that_unloads_it_does_not_win(guarded: RunningGuard, api: Api) -> None:
    api.post("/api/generate", {"model": api.alias, "keep_alive": 0})
    guarded.told("evicted", "load")
    resident_again(guarded, api)


def test_another_model_that_took_its_place_is_named_and_then_goes(
    guarded: RunningGuard, api: Api, starter_gguf: Path
) -> None:
    rival = other_weights(api, starter_gguf)
    api.post("/api/generate", {"model": rival, "prompt": "x", "options": {"num_predict": 1}})
    told = guarded.told("evicted", "load")
    assert rival.partition(":")[0] in told["words"] + told["observed"]
    assert rival in told["remedy"]
    resident_again(guarded, api)


def other_weights(api: Api, gguf: Path) -> str:
    """A model of weights that are not the starter's: one byte in its last tensor is another one."""
    content = bytearray(gguf.read_bytes())
    content[-1] ^= 1
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=240)
    connection.request("POST", f"/api/blobs/{digest}", bytes(content))
    assert connection.getresponse().status == 201
    connection.close()
    api.post("/api/create", {"model": "rival", "files": {"model.gguf": digest}, "template": "{{ .Prompt }}"})
    return "rival:latest"


def test_a_client_with_another_context_gets_its_answer_and_then_the_model_is_as_it_was(
    guarded: RunningGuard, api: Api
) -> None:
    answer = api.post(
        "/api/generate", {"model": api.alias, "prompt": "The", "options": {"num_ctx": 1024, "num_predict": 4}}
    )
    assert answer["eval_count"] == 4
    told = guarded.told("wrong_context", "load")
    assert "1024" in told["observed"]
    resident_again(guarded, api)
    assert api.loaded()[0]["context_length"] == 2048


def test_a_removed_alias_is_made_again_from_the_file_of_the_profile(guarded: RunningGuard, api: Api) -> None:
    api.post("/api/delete", {"model": api.alias}, method="DELETE")
    guarded.told("wrong_digest", "load")
    resident_again(guarded, api)


def test_a_long_answer_is_never_disturbed(guarded: RunningGuard, api: Api, start_guard: StartGuard) -> None:
    """The probe of a second guard, which has just begun, waits behind the answer; with an interval this short the
    guard's patience is over many times meanwhile."""
    before, answers = api.runner, []

    def ask() -> None:
        options = {"num_predict": LONG, "temperature": 0, "stop": []}
        answers.append(
            api.post("/api/generate", {"model": api.alias, "raw": True, "prompt": "The", "options": options})
        )

    asking = threading.Thread(target=ask)
    asking.start()
    other = start_guard(interval="0.1")
    asking.join(timeout=240)
    assert answers[0]["eval_count"] == LONG
    assert api.runner == before
    actions = {event["action"] for guard in (guarded, other) for event in guard.events}
    assert actions == {None}
    other.is_ready()


def test_a_hold_is_kept_and_ends(guarded: RunningGuard, api: Api) -> None:
    assert guarded.cli("guard", "--hold").code == 0
    guarded.told("held")
    guarded.cli.kill(api.runner)
    assert guarded.cli("guard", "--once", "--json").json["models"][0]["reason"] == "held"
    assert api.runners() == []
    assert guarded.cli("guard", "--resume", "--json").json["changed"] is True
    guarded.told("not_running", "load")
    resident_again(guarded, api)


def test_down_is_not_undone_and_up_ends_that(guarded: RunningGuard, api: Api, ready: str) -> None:
    assert guarded.cli("guard", "--hold", "1h").code == 0
    guarded.told("held")
    assert guarded.cli("down").code == 0
    assert guarded.cli.owned() == []
    assert guarded.cli("guard", "--resume").code == 0
    assert guarded.cli("up", ready).code == 0
    resident_again(guarded, api)


def test_a_dead_lease_is_ended_and_the_model_comes_back(guarded: RunningGuard, api: Api) -> None:
    program = (
        "import sys, time; from pathlib import Path; from llmctl.system import pauses\n"
        "with pauses.lease(Path(sys.argv[1]), 'a game'): print('has it', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(guarded.runtime)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    guarded.told("leased")
    guarded.cli.kill(api.runner)
    holder.kill()
    holder.communicate()
    guarded.told("not_running", "load")
    resident_again(guarded, api)


def test_a_killed_guard_leaves_nothing_broken(guarded: RunningGuard, api: Api, start_guard: StartGuard) -> None:
    before = api.runner
    guarded.stop(signal.SIGKILL)
    note = guarded.note
    assert note is not None
    assert not note.alive
    assert api.runner == before
    assert guarded.cli("status", "--quiet").code == 0
    again = start_guard()
    assert again.is_ready().alive
    assert api.runner == before


def test_sigterm_ends_it_and_its_note(guarded: RunningGuard) -> None:
    assert guarded.stop() == 0
    assert guarded.note is None
    assert guarded.errors == ""
