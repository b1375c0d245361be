"""The main job on a real engine with a real model: up, status, ask, down; and all of it again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartOllama
from tests.lifecycle.conftest import Llmctl
from tests.parts import machine
from tests.parts.rpc import NOTHING_FITS, RpcGpu

pytestmark = pytest.mark.real("ollama", "model")


def moved(profile: str, port: int) -> str:
    """The text of a profile with another port."""
    return re.sub(r"port: \d+", f"port: {port}", Path(profile).read_text())


def test_up_pins_loads_and_proves_then_ask_answers_then_down_leaves_nothing(llmctl: Llmctl, starter_gguf: Path) -> None:
    profile = llmctl.profile(starter_gguf)
    up = llmctl("up", profile, "--yes", "--json")
    assert up.code == 0, up.err
    model = up.json["models"][0]
    assert (model["verdict"], model["place"], model["context"]) == ("proved", "cpu", 2048)
    assert model["alias"].startswith("llmctl/starter")
    assert model["weights_digest"] in Path(profile).with_suffix(".lock").read_text()

    status = llmctl("status", "--json").json
    assert (status["state"], status["owner"], status["verdict"]) == ("running", "llmctl", "proved")
    assert status["models"][0]["quantization"] == "Q4_K_M"
    assert llmctl("status", "--quiet").code == 0

    answer = llmctl("ask", "The capital of France is", "--max-tokens", "12", "--temperature", "0", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["completion_tokens"] == 12
    assert answer.json["response"].strip()

    assert llmctl("down").code == 0
    assert llmctl.owned() == []
    assert llmctl("status").code == 3


def test_a_second_up_and_a_second_down_change_nothing(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready, "--json").json["changed"] is True
    before = llmctl.owned()
    again = llmctl("up", ready, "--json")
    assert (again.code, again.json["changed"]) == (0, False)
    assert llmctl.owned() == before
    assert llmctl("down", "--json").json["changed"] is True
    assert llmctl("down", "--json").json["changed"] is False


def test_up_without_a_name_after_down_is_the_same_profile_again(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    assert llmctl("down").code == 0
    asked = llmctl("ask", "Hello", "--json")
    assert (asked.code, asked.error["hint"]) == (3, "llmctl up")
    assert llmctl("up", "--json").json["profile"] == ready


def test_the_server_outlives_the_shell_that_started_it(llmctl: Llmctl, ready: str) -> None:
    started = llmctl.start("up", ready)
    started.communicate(timeout=120)
    with suppress(ProcessLookupError):
        # What a terminal sends to everything in its session when its window is closed.
        os.killpg(started.pid, signal.SIGHUP)
    assert llmctl("status", "--quiet").code == 0


def test_changed_settings_restart_an_owned_server(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    Path(ready).write_text(Path(ready).read_text().replace("context: 2048", "context: 1024"))
    up = llmctl("up", ready, "--json")
    assert up.code == 0, up.err
    assert up.json["models"][0]["context"] == 1024
    assert llmctl("status", "--json").json["models"][0]["context"] == 1024


def test_up_of_another_profile_stops_the_first(llmctl: Llmctl, ready: str, tmp_path: Path) -> None:
    assert llmctl("up", ready).code == 0
    first = llmctl.owned()
    other = tmp_path / "other.yaml"
    other.write_text(moved(ready, machine.free_port()))
    other.with_suffix(".lock").write_bytes(Path(ready).with_suffix(".lock").read_bytes())
    assert llmctl("up", str(other)).code == 0
    assert not set(first) & set(llmctl.owned())


def test_a_running_server_is_attached_never_stopped(
    llmctl: Llmctl, starter_gguf: Path, ollama_server: StartOllama
) -> None:
    server = ollama_server({"OLLAMA_KEEP_ALIVE": "5m"})
    profile = llmctl.profile(starter_gguf, port=server.port)
    up = llmctl("up", profile, "--yes", "--json")
    assert up.code == 0, up.err
    assert up.json["owner"] == "foreign"
    assert {"setting": "OLLAMA_KEEP_ALIVE", "wanted": "-1", "found": "5m"} in up.json["lacks"]
    shown = llmctl("up", profile)
    assert "systemctl edit" in shown.out
    assert 'Environment="OLLAMA_KEEP_ALIVE=-1"' in shown.out
    assert llmctl("status", "--json").json["owner"] == "foreign"

    down = llmctl("down")
    assert down.code == 0
    assert "goes on" in down.out
    assert server.get("/api/ps")["models"], "the model stays loaded"
    unloaded = llmctl("down", "--unload", "--json")
    assert unloaded.json["unloaded"] == ["starter"]
    assert server.process.poll() is None


def test_the_runner_of_another_server_is_no_witness(
    llmctl: Llmctl, starter_gguf: Path, ollama_server: StartOllama
) -> None:
    """Two servers serve the same weights, from one store; whichever is asked about, its own runner is shown."""
    first = ollama_server()
    servers = (first, ollama_server(models=first.models))
    for server in servers:
        up = llmctl("up", llmctl.profile(starter_gguf, port=server.port), "--yes", "--json")
        assert up.code == 0, up.err
    alias = up.json["models"][0]["alias"]
    for server in servers:
        server.post("/api/generate", {"model": alias, "keep_alive": -1})
        profile = llmctl.profile(starter_gguf, port=server.port)
        found = [llmctl("up", profile, "--json").json, llmctl("status", "--json").json]
        runners = [psutil.Process(document["models"][0]["runner_pid"]).ppid() for document in found]
        assert runners == [server.process.pid] * 2


def test_a_port_held_by_another_program_is_named(llmctl: Llmctl, ready: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        Path(ready).write_text(moved(ready, port))
        done = llmctl("up", ready, "--json")
    assert (done.code, done.error["code"]) == (1, "port_in_use")
    assert str(port) in done.error["message"]
    assert str(os.getpid()) in done.error["message"]


def test_down_ends_runners_whose_server_was_killed(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    server, *runners = llmctl.owned()
    assert runners
    llmctl.kill(server)
    assert runners == llmctl.owned()
    assert llmctl("status").code == 3
    assert llmctl("down").code == 0
    assert llmctl.owned() == []


def test_up_after_a_killed_server_ends_its_orphans(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    server, *runners = llmctl.owned()
    llmctl.kill(server)
    assert llmctl("up", ready).code == 0
    assert not set(runners) & set(llmctl.owned())


def test_two_ups_at_once_start_one_server(llmctl: Llmctl, ready: str) -> None:
    both = [llmctl.start("up", ready, "--json") for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert sorted(json.loads(out)["changed"] for out, _ in results) == [False, True]
    assert len([pid for pid in llmctl.owned() if b"\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]) == 1


@pytest.mark.parametrize("step", ["profile", "engine", "server", "model", "load", "proof"])
def test_up_killed_at_any_step_is_continued_by_the_next(llmctl: Llmctl, ready: str, step: str) -> None:
    first = llmctl.start("up", ready)
    assert first.stderr is not None
    for line in first.stderr:
        if line.split()[1].lower().startswith(step):
            break
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = llmctl("up", ready, "--json")
    assert done.code == 0, done.err
    assert done.json["verdict"] == "proved"
    servers = [pid for pid in llmctl.owned() if b"\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(servers) == 1


def test_ctrl_c_says_so_and_the_next_up_continues(llmctl: Llmctl, ready: str) -> None:
    first = llmctl.start("up", ready)
    assert first.stderr is not None
    for line in first.stderr:
        if "server" in line:
            break
    os.kill(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode in {0, 130}, err
    assert llmctl("up", ready).code == 0


def test_a_runner_that_died_is_seen_and_loaded_again(llmctl: Llmctl, ready: str) -> None:
    up = llmctl("up", ready, "--json").json
    runner = llmctl.runner
    llmctl.kill(runner)
    # /api/ps goes on showing it: nothing has asked the dead runner yet.
    assert llmctl("status", "--quiet").code == 5
    assert llmctl("up", ready).code == 0
    assert llmctl("status", "--quiet").code == 0
    assert up["models"][0]["runner_pid"] not in llmctl.owned()


@pytest.mark.real("rpc")
def test_require_full_puts_everything_on_the_device_and_proves_it(
    llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu
) -> None:
    llmctl.environ |= rpc_gpu.environ
    profile = llmctl.profile(starter_gguf, require="full")
    up = llmctl("up", profile, "--json")
    assert up.code == 0, up.err
    assert (up.json["models"][0]["verdict"], up.json["models"][0]["place"]) == ("proved", "gpu")
    llmctl("down")


@pytest.mark.real("rpc")
def test_require_full_does_not_fall_back_to_the_cpu_where_nothing_would_fit(
    llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu
) -> None:
    """With LLAMA_ARG_FIT_TARGET llama.cpp would silently put 0 layers on the device; the enforcement overrides it."""
    llmctl.environ |= rpc_gpu.environ | NOTHING_FITS
    up = llmctl("up", llmctl.profile(starter_gguf, require="full"), "--json")
    assert (up.code, up.json["models"][0]["place"]) == (0, "gpu"), up.err
    llmctl("down")
    fallen = llmctl("up", llmctl.profile(starter_gguf, require="none"), "--json")
    assert (fallen.code, fallen.json["models"][0]["place"]) == (0, "cpu"), "without enforcement it lies in host memory"
    llmctl("down")


def test_require_full_without_a_gpu_is_refused_before_anything_starts(
    llmctl: Llmctl, ready: str, starter_gguf: Path
) -> None:
    done = llmctl("up", llmctl.profile(starter_gguf, require="full"), "--json")
    assert done.code == 5
    assert done.error["code"] == "no_gpu"
    assert llmctl.owned() == []


@pytest.mark.real("rpc")
def test_an_attached_server_whose_placement_nothing_shows_is_unverified(
    llmctl: Llmctl, starter_gguf: Path, rpc_gpu: RpcGpu, ollama_server: StartOllama
) -> None:
    server = ollama_server(rpc_gpu.environ)
    done = llmctl("up", llmctl.profile(starter_gguf, port=server.port, require="full"), "--yes", "--json")
    assert done.code == 5
    assert done.json["verdict"] == "unverified"
