"""The verbs where the machine is not as one would wish: no HOME, no terminal, a narrow one, folders that cannot be
written, a locale without letters, a reader that leaves."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lifecycle.conftest import Llmctl
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "model")

GIB = 1 << 30


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Root may write where modes forbid it, so the file system itself says no."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def on_a_terminal(llmctl: Llmctl, *arguments: str, columns: int) -> str:
    """What a terminal of that width shows in the end."""
    # A name of its own: one that was just killed may still be on its way out.
    session = f"llmctl-{uuid.uuid4()}"
    command = " ".join([sys.executable, "-m", "llmctl", *arguments])
    environ = {**os.environ, **llmctl.environ, "TERM": "xterm-256color"}
    tmux = ["tmux", "-L", session]
    subprocess.run(
        [*tmux, "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "60", f"{command}; echo END; cat"],
        env=environ,
        check=True,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            shown = subprocess.run([*tmux, "capture-pane", "-p"], env=environ, capture_output=True, text=True).stdout
            if "END" in shown:
                return shown
            time.sleep(0.05)
        raise AssertionError(f"no end on the terminal:\n{shown}")
    finally:
        subprocess.run([*tmux, "kill-server"], env=environ, check=False)


def test_without_a_home_folder_in_the_environment(llmctl: Llmctl, ready: str) -> None:
    without = {key: value for key, value in {**os.environ, **llmctl.environ}.items() if key != "HOME"}
    for verb in (["up", ready], ["status", "--quiet"], ["ask", "Hello", "--max-tokens", "2"], ["down"]):
        done = subprocess.run(llmctl.command(*verb), env=without, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_a_consent_that_nobody_can_give_is_exit_2(llmctl: Llmctl, starter_gguf: Path) -> None:
    profile = llmctl.profile(starter_gguf)
    text = Path(profile).read_text().replace(f"source: {starter_gguf}", "source: starter")
    Path(profile).write_text(text)
    done = llmctl("up", profile, "--json")
    assert (done.code, done.error["code"]) == (2, "consent_needed")
    assert "--yes" in done.error["hint"]
    assert done.out == ""
    assert llmctl("down").code == 0


@pytest.mark.real("tmpfs")
def test_a_profile_folder_that_cannot_be_written(llmctl: Llmctl, ready: str, small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1 << 20)
    profile = folder / "my.yaml"
    shutil.copy(ready, profile)
    with read_only(folder):
        done = llmctl("up", str(profile), "--yes", "--json")
    assert (done.code, done.error["code"]) == (1, "read_only")
    assert str(folder) in done.error["message"]


@pytest.mark.real("tmpfs")
def test_a_written_lock_needs_no_second_write(llmctl: Llmctl, ready: str, small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1 << 20)
    for name in ("my.yaml", "my.lock"):
        shutil.copy(llmctl.folder / name, folder / name)
    with read_only(folder):
        assert llmctl("up", str(folder / "my.yaml")).code == 0


@pytest.mark.real("tmpfs")
def test_a_full_state_disk_is_said_and_leaves_no_half_state(
    llmctl: Llmctl, ready: str, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(64 << 10)
    llmctl.environ["LLMCTL_STATE_DIR"] = str(folder)
    (folder / "filler").write_bytes(b"x" * (60 << 10))
    done = llmctl("up", ready, "--json")
    (folder / "filler").unlink()
    assert (done.code, done.error["code"]) == (1, "disk_full"), done.err
    assert llmctl("up", ready).code == 0
    assert llmctl("down").code == 0


def test_a_locale_without_letters_and_a_terminal_without_colour(llmctl: Llmctl, ready: str) -> None:
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    for verb in (["up", ready], ["status"], ["ask", "Schöne Grüße", "--max-tokens", "4"], ["list"], ["down"]):
        done = llmctl(*verb, environ=plain)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        assert "\x1b" not in done.out + done.err


def test_a_reader_that_leaves_is_141_and_no_traceback(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    process = subprocess.Popen(
        llmctl.command("ask", "Count from one to a thousand:", "--max-tokens", "200"),
        env={**os.environ, **llmctl.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert err == b""


@pytest.mark.real("tmux")
@pytest.mark.parametrize("columns", [40, 80])
def test_the_checklist_and_the_status_fit_the_terminal(llmctl: Llmctl, ready: str, columns: int) -> None:
    shown = on_a_terminal(llmctl, "up", ready, columns=columns)
    assert re.search(r"ok proof +digest", shown), shown
    assert all(len(line) <= columns for line in shown.splitlines())
    status = on_a_terminal(llmctl, "status", columns=columns)
    assert re.search(r"pin +a5fd3b62230a", status), status


def test_watch_on_a_terminal_ends_with_ctrl_c(llmctl: Llmctl, ready: str) -> None:
    assert llmctl("up", ready).code == 0
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        llmctl.command("status", "--watch"),
        env={**os.environ, **llmctl.environ},
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
    )
    os.close(secondary)
    seen = b""
    while b"running" not in seen:
        assert select.select([primary], [], [], 60)[0], seen
        seen += os.read(primary, 4096)
    process.send_signal(2)
    assert process.wait(timeout=30) == 130
    os.close(primary)


@pytest.mark.real("rpc", "nvml")
def test_nvml_is_a_second_witness_that_can_contradict(
    llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu, nvml_standin: NvmlStandin
) -> None:
    """A driver that lists the runner with its bytes is shown in status; `up` reads it through the real pynvml."""
    llmctl.environ |= rpc_gpu.environ | nvml_standin.environ
    profile = llmctl.profile(starter_gguf, require="full")
    up = llmctl("up", profile, "--json")
    assert up.code == 0, up.err
    runner = up.json["models"][0]["runner_pid"]
    nvml_standin.set(ScriptedGpu(compute=[(runner, 2 * GIB)]))
    assert llmctl("status", "--json").json["models"][0]["measured_bytes"] == 2 * GIB
    assert llmctl("down").code == 0
