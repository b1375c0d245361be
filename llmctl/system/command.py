"""Run a child program, line by line.

The child gets a process group of its own, which is ended on Ctrl-C, on a deadline and on any other exception, so
that no compiler outlives the command that started it. When llmctl itself is killed, the child's next write to the
closed pipe ends it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import LlmctlError

TAIL_LINES = 60
MAX_LINE_BYTES = 64 << 10
GRACE_SECONDS = 5.0

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """How a program ended. `tail` holds the last lines of stdout and stderr, in the order they came."""

    arguments: tuple[str, ...]
    status: int
    tail: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.tail)


def run(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    on_line: OnLine | None = None,
    timeout_seconds: float | None = None,
) -> Finished:
    """Run a program to its end, whatever its status. Raises LlmctlError when it cannot be started (code
    `command_failed`) or does not end in time (code `command_timeout`)."""
    process = start(arguments, environ, cwd)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        for line in lines(process, arguments[0], deadline):
            tail.append(line)
            if on_line is not None:
                on_line(line)
        status = process.wait(remaining(deadline))
    except subprocess.TimeoutExpired:
        end_group(process)
        raise too_slow(arguments[0]) from None
    except BaseException:
        end_group(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return Finished(tuple(arguments), status, tuple(tail))


def start(arguments: Sequence[str], environ: Mapping[str, str], cwd: Path | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(arguments),
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise LlmctlError(f"cannot run {arguments[0]}: {error.strerror}", code="command_failed") from error


def lines(process: subprocess.Popen[bytes], name: str, deadline: float | None) -> Iterator[str]:
    """Output lines until the stream ends; a carriage return ends a line too."""
    assert process.stdout is not None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(remaining(deadline)):
                raise too_slow(name)
            chunk = os.read(process.stdout.fileno(), MAX_LINE_BYTES)
            if not chunk:
                break
            *whole, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                whole, pending = [*whole, pending], b""
            yield from (line.decode(errors="replace") for line in whole if line.strip())
    if pending.strip():
        yield pending.decode(errors="replace")


def remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def too_slow(name: str) -> LlmctlError:
    return LlmctlError(f"{name} did not end in time", code="command_timeout")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the child's whole group, SIGKILL to what is left of it, and the child reaped."""
    signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
