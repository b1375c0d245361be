"""The GPU is given to a command and taken back, whatever way the command or llmctl ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.lifecycle.conftest import Llmctl
from tests.parts.nvml import NvmlStandin, ScriptedGpu

pytestmark = pytest.mark.real("ollama", "model")

# Touches the file that it is given, then sleeps; SIGTERM ends it.
WAITER = """
import pathlib, signal, sys, time
# Tests may be started with SIGINT ignored, which a command inherits.
signal.signal(signal.SIGINT, signal.SIG_DFL)
pathlib.Path(sys.argv[1]).touch()
time.sleep(300)
"""


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def waiting(llmctl: Llmctl, tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """A yield whose command has begun and goes on."""
    begun = tmp_path / "begun"
    process = llmctl.start("yield", *options, "--", sys.executable, "-c", WAITER, str(begun))
    until(begun.exists, "the command does not begin")
    return process


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_the_command_finds_the_gpu_free_and_the_model_is_back_after_it(llmctl: Llmctl, up: str) -> None:
    server, *runners = llmctl.owned()
    assert runners
    shown = 'for pid in %s; do test -e /proc/$pid && echo alive; done; echo "in: $(cat)"; echo bad >&2; exit 7'
    done = llmctl("yield", "--", "sh", "-c", shown % " ".join(map(str, runners)), stdin="hello")
    assert (done.code, done.out) == (7, "in: hello\n"), done.err
    assert "bad" in done.err
    assert llmctl("status", "--quiet").code == 0
    assert llmctl.server == server, "the server itself goes on"


def test_while_it_runs_nothing_of_llmctl_takes_the_gpu_back(llmctl: Llmctl, up: str, tmp_path: Path) -> None:
    process = waiting(llmctl, tmp_path)
    asked = llmctl("ask", "Hello", "--json")
    assert (asked.code, asked.error["code"]) == (3, "leased")
    assert f"pid {process.pid}" in asked.error["message"]
    brought = llmctl("up", up, "--json")
    assert (brought.code, brought.error["code"]) == (5, "leased")
    second = llmctl("yield", "--", "true")
    assert second.code == 5
    assert f"pid {process.pid}" in second.err
    status = llmctl("status", "--json")
    assert (status.json["verdict"], status.json["models"][0]["resident"]) == ("refuted", False)
    assert "given to" in status.json["note"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert llmctl("ask", "Hello", "--max-tokens", "4").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_llmctl_reaches_the_command(llmctl: Llmctl, tmp_path: Path, number: signal.Signals) -> None:
    process = waiting(llmctl, tmp_path)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number


def test_the_time_is_up(llmctl: Llmctl) -> None:
    done = llmctl("yield", "--timeout", "0.3", "--", "sleep", "300")
    assert done.code == 124
    assert "0.3 s" in done.err


def test_a_stopped_command_is_ended_too(llmctl: Llmctl) -> None:
    assert llmctl("yield", "--timeout", "0.3", "--", "sh", "-c", "kill -STOP $$").code == 124


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126), ("/nowhere/x", 127)])
def test_what_cannot_run_costs_no_unload(llmctl: Llmctl, up: str, command: str, code: int) -> None:
    before = llmctl.owned()
    assert llmctl("yield", "--", command).code == code
    assert llmctl.owned() == before


def test_a_signal_that_ends_the_command_is_in_the_status(llmctl: Llmctl) -> None:
    assert llmctl("yield", "--", "sh", "-c", "kill -9 $$").code == 137


def test_options_after_the_dashes_are_the_commands(llmctl: Llmctl) -> None:
    done = llmctl("yield", "--", "echo", "--json", "--timeout", "-x")
    assert (done.code, done.out) == (0, "--json --timeout -x\n")


def test_sigkill_of_llmctl_ends_the_command_and_the_next_up_mends(
    llmctl: Llmctl, up: str, tmp_path: Path, runtime: Path
) -> None:
    process = waiting(llmctl, tmp_path)
    command = child_of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not Path(f"/proc/{command}").exists(), "the command outlives llmctl")
    status = llmctl("status", "--json").json
    assert "ended without giving it back" in status["note"]
    assert "llmctl up" in status["note"]
    mended = llmctl("up", up)
    assert mended.code == 0, mended.err
    assert "without giving it back" in mended.err
    assert not (runtime / "lease.json").exists()
    assert llmctl("status", "--quiet").code == 0


def test_a_dead_lease_stops_no_question_and_no_other_yield(llmctl: Llmctl, up: str, tmp_path: Path) -> None:
    process = waiting(llmctl, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert llmctl("ask", "Hello", "--max-tokens", "4").code == 0
    assert llmctl("yield", "--", "true").code == 0
    assert llmctl("status", "--quiet").code == 0


def test_down_while_it_runs_is_meant(llmctl: Llmctl, up: str, tmp_path: Path) -> None:
    process = waiting(llmctl, tmp_path)
    assert llmctl("down").code == 0
    process.terminate()
    process.communicate(timeout=60)
    assert llmctl.owned() == []


def test_a_server_that_died_meanwhile_is_started_again(llmctl: Llmctl, up: str) -> None:
    server = llmctl.server
    assert llmctl("yield", "--", "sh", "-c", f"kill -9 {server}").code == 0
    assert llmctl("status", "--quiet").code == 0


def test_a_model_that_cannot_come_back_is_no_success(llmctl: Llmctl, up: str) -> None:
    """Its status is the command's where that failed already; 0 would say that all is well."""
    llmctl.environ["LLMCTL_ENGINE"] = "/nowhere/ollama"
    kill = f"kill -9 {llmctl.server}"
    done = llmctl("yield", "--", "sh", "-c", kill)
    assert done.code == 1
    assert "/nowhere/ollama" in done.err
    failed = llmctl("yield", "--", "sh", "-c", "exit 9")
    assert failed.code == 9
    assert "the model is not back" in failed.err


def test_nothing_up_is_no_reason_to_do_without_the_lease(llmctl: Llmctl, tmp_path: Path, runtime: Path) -> None:
    process = waiting(llmctl, tmp_path)
    assert json.loads((runtime / "lease.json").read_text())["pid"] == process.pid
    assert llmctl("yield", "--", "true").code == 5
    process.terminate()
    process.communicate(timeout=60)
    assert llmctl("yield", "--", "true").code == 0
    assert llmctl.owned() == []


def test_an_attached_server_is_asked_and_goes_on(
    llmctl: Llmctl, starter_gguf: Path, ollama_server: StartOllama, tmp_path: Path
) -> None:
    server = ollama_server()
    profile = llmctl.profile(starter_gguf, port=server.port)
    assert llmctl("up", profile, "--yes").code == 0
    process = waiting(llmctl, tmp_path)
    assert server.get("/api/ps")["models"] == []
    process.terminate()
    process.communicate(timeout=120)
    assert server.process.poll() is None
    assert llmctl("status", "--quiet").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can stand for another user")
def test_under_sudo_the_command_is_the_users(llmctl: Llmctl) -> None:
    llmctl.environ |= {"SUDO_UID": "65534", "SUDO_GID": "65534", "SUDO_USER": "nobody"}
    done = llmctl("yield", "--", "sh", "-c", "id -un; id -G; echo $HOME $USER")
    assert (done.code, done.out.splitlines()[:2]) == (0, ["nobody", "65534"]), done.err
    assert done.out.splitlines()[2].endswith(" nobody")


@pytest.mark.real("nvml")
def test_memory_that_the_driver_keeps_is_told(llmctl: Llmctl, up: str, nvml_standin: NvmlStandin) -> None:
    """The scripted driver goes on saying that the ended runner holds its memory."""
    runner = llmctl.runner
    nvml_standin.set(ScriptedGpu(compute=[(runner, 4 << 30)], used_bytes=5 << 30))
    llmctl.environ |= nvml_standin.environ
    done = llmctl("yield", "--", "true")
    assert done.code == 0, done.err
    assert "its memory is not free yet" in done.err


@pytest.mark.real("tmux", "bash")
def test_the_command_has_the_terminal_and_ctrl_c_is_its_own(llmctl: Llmctl, tmp_path: Path) -> None:
    """A shell in a real terminal: it reads what is typed, Ctrl-C ends its job only, Ctrl-Z stops the whole of it."""
    socket = str(tmp_path / "tmux")
    tmux = ["tmux", "-S", socket, "-f", "/dev/null"]
    environ = {**os.environ, **llmctl.environ, "TERM": "xterm-256color"}
    shell = "bash --norc --noprofile"
    subprocess.run([*tmux, "new-session", "-d", "-x", "120", "-y", "40", shell], env=environ, check=True)

    def screen() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    def type_(text: str, *keys: str) -> None:
        subprocess.run([*tmux, "send-keys", text, *keys], check=True)

    try:
        until(lambda: "$" in screen() or "#" in screen(), "no prompt")
        type_(" ".join(llmctl.command("yield", "--", "cat")), "Enter")
        until(lambda: "nothing is up" in screen(), "the command does not begin")
        type_("typed", "Enter")
        until(lambda: screen().count("typed") >= 2, screen())
        type_("C-z")
        until(lambda: "Stopped" in screen(), screen())
        type_("fg", "Enter")
        type_("again", "Enter")
        until(lambda: screen().count("again") >= 2, screen())
        type_("C-c")
        type_("echo rc=$?", "Enter")
        until(lambda: "rc=130" in screen(), screen())
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
