"""`ask` as the shell has it: a process with pipes, a terminal, signals and a locale."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from tests.ask.conftest import CHECKOUT, sent
from tests.fake_ollama import FakeOllama, Reply

Start = Callable[..., "subprocess.Popen[bytes]"]
LLMCTL = f"{sys.executable} -m llmctl"
DONE = {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}


def token(text: str) -> dict[str, Any]:
    return {"response": text, "done": False}


def first_bytes(running: subprocess.Popen[bytes]) -> bytes:
    """What stdout has once it has something."""
    assert running.stdout is not None
    return os.read(running.stdout.fileno(), 65536)


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=CHECKOUT, stdin=subprocess.DEVNULL
    )


def test_tokens_come_one_by_one(fake: FakeOllama, process: Start) -> None:
    more = threading.Event()
    fake.script("/api/generate", Reply(lines=[token("Par")], hold=more))

    running = process("hello")
    arrived = first_bytes(running)
    more.set()
    running.communicate()

    assert arrived == b"Par"


def test_interrupted_it_keeps_what_arrived_and_exits_130(fake: FakeOllama, process: Start) -> None:
    more = threading.Event()
    fake.script("/api/generate", Reply(lines=[token("Par")], hold=more))

    running = process("hello")
    arrived = first_bytes(running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate()
    more.set()

    assert (running.returncode, arrived + out, err) == (130, b"Par\n", b"interrupted\n")


def test_a_reader_that_leaves_ends_it_quietly(fake: FakeOllama, process: Start) -> None:
    more = threading.Event()
    lines = [token(f"line {number}\n") for number in range(20_000)]
    fake.script("/api/generate", Reply(lines=[*lines, DONE], hold=more))
    more.set()

    running = process("hello")
    first_bytes(running)
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    said = running.stderr.read()
    running.stderr.close()

    assert (running.wait(), said) == (141, b"")


def test_closed_and_full_streams(fake: FakeOllama) -> None:
    assert shell(f"{LLMCTL} ask hello <&-").stdout.strip() != b""
    silent = shell(f"{LLMCTL} ask hello >&-")
    full = shell(f"{LLMCTL} ask hello >/dev/full")

    assert (silent.returncode, silent.stderr) == (0, b"")
    assert (full.returncode, full.stderr) == (1, b"error: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ({"LANG": "C"}, "größer 日本\n".encode()),
        ({"LC_ALL": "C"}, "größer 日本\n".encode()),
        # What a Python without its UTF-8 mode makes of such a locale.
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"gr??er ??\n"),
    ],
)
def test_a_plain_locale(fake: FakeOllama, process: Start, locale: dict[str, str], expected: bytes) -> None:
    fake.script("/api/generate", Reply(lines=[token("größer 日本"), DONE]))
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("LANG", "LC_"))}

    out, err = process("schöne Grüße", env=environ | locale).communicate()

    assert (out, err) == (expected, b"")
    assert sent(fake)["prompt"] == "schöne Grüße"


def on_a_terminal(columns: int, *arguments: str, **environ: str) -> str:
    """What `ask` draws on a terminal of that width."""
    master, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    running = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "ask", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=CHECKOUT,
        env={**os.environ, "TERM": "xterm-256color", **environ},
        start_new_session=True,
    )
    os.close(terminal)
    drawn = b""
    while True:
        select.select([master], [], [])
        try:
            piece = os.read(master, 65536)
        except OSError:  # Linux's end of file on a terminal whose other side is closed
            break
        drawn += piece
    os.close(master)
    assert running.wait() == 0, drawn
    return drawn.decode()


MARKDOWN = [
    token("# Paris\n\nThe **capital** of France, with a river, a tower and a rather long sentence.\n\n"),
    token("```python\nprint('**kept**')\n```\n"),
    DONE,
]


def test_markdown_is_rendered_on_a_terminal_only(fake: FakeOllama, process: Start) -> None:
    fake.script("/api/generate", Reply(lines=MARKDOWN), Reply(lines=MARKDOWN))

    drawn = on_a_terminal(80, "hello")
    piped = process("hello").communicate()[0].decode()

    assert "**capital**" not in drawn
    assert re.search(r"\x1b\[1m\s*capital", drawn)
    assert "**kept**" in re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert piped == "".join(str(line["response"]) for line in MARKDOWN)


def test_a_narrow_terminal_without_colour(fake: FakeOllama) -> None:
    fake.script("/api/generate", Reply(lines=MARKDOWN))

    drawn = on_a_terminal(40, "hello", NO_COLOR="1")

    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38|4[0-7]|48)[0-9;]*m", drawn)
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert max(len(line) for line in visible.replace("\r", "\n").split("\n")) <= 40


PEAK = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "llmctl", "ask"], stdin=open(sys.argv[1], "rb"), capture_output=True)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def test_a_large_prompt_passes_through_in_constant_memory(fake: FakeOllama, tmp_path: Path) -> None:
    def peak_bytes(size_bytes: int) -> int:
        prompt = tmp_path / "prompt"
        prompt.write_bytes(b"word " * (size_bytes // 5))
        # Measured by a process of its own: what this one once used counts as its children's peak on Linux.
        done = subprocess.run([sys.executable, "-c", PEAK, prompt], capture_output=True, text=True, cwd=CHECKOUT)
        code, peak = done.stdout.split()
        assert code == "6" if size_bytes > 1_000_000 else "0", done.stderr
        return int(peak)

    small, large = peak_bytes(100), peak_bytes(10_000_000)

    assert len(str(fake.requests)) > 10_000_000
    assert large - small < 10_000_000
