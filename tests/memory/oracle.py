"""The oracle: what llama-server itself says it will allocate, before it allocates anything.

`python -m tests.memory.oracle` measures the recorded cells again; see tests/memory/cells/.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
_COMPUTE = re.compile(rb"sched_reserve:\s+(\S+) compute buffer size =\s*([0-9.]+) MiB")
_NODES = re.compile(rb"sched_reserve: graph nodes\s*= (\d+)")
_SPLITS = re.compile(rb"sched_reserve: graph splits = (\d+)")
_GIVEN_UP = re.compile(rb"(failed to \w+ (?:the )?(?:model|context)[^\n]*|error loading model[^\n]*)")


@dataclass(frozen=True)
class Measured:
    """MiB by device as printed, and what the graph has."""

    compute: dict[str, float]
    nodes: int
    splits: int


def measure(server: Path, model: Path, arguments: list[str], gpus: int = 0) -> Measured | str:
    """One run of the fit, with `gpus` stand-ins. Text where the engine refuses the settings.

    Each run has stand-ins of its own: ggml-rpc-server may die with a client that is killed.
    """
    with ExitStack() as stack:
        addresses = [stack.enter_context(_stand_in(server.with_name("ggml-rpc-server"))) for _ in range(gpus)]
        variables = dict(os.environ) | ({"LLAMA_ARG_RPC": ",".join(addresses)} if addresses else {})
        command = [str(server), "-m", str(model), *arguments, "--port", str(_port()), *_FLAGS]
        return _parse(_until_known(stack.enter_context(_running(command, variables))))


@contextmanager
def _running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def _stand_in(server: Path) -> Iterator[str]:
    port = _port()
    command = [str(server), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, dict(os.environ)) as process:
        end = time.monotonic() + 30
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("ggml-rpc-server did not start")
            select.select([], [], [], 0.005)
        yield f"127.0.0.1:{port}"


def _listens(port: int) -> bool:
    """Whether somebody listens, without connecting: the stand-in serves one client at a time."""
    suffix = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(suffix) and fields[3] == "0A":
            return True
    return False


_FLAGS = ["--host", "127.0.0.1", "--no-repack", "--no-warmup", "--offline", "--no-webui", "-lv", "5"]


def _port() -> int:
    with socket.socket() as probe:
        for port in range(21000 + os.getpid() % 5000, 32000):
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def _until_known(process: subprocess.Popen[bytes], deadline_seconds: float = 60) -> bytes:
    output, end = b"", time.monotonic() + deadline_seconds
    assert process.stdout
    descriptor = process.stdout.fileno()
    while time.monotonic() < end:
        if not select.select([descriptor], [], [], 1)[0]:
            continue
        data = os.read(descriptor, 1 << 16)
        output += data
        if not data or _SPLITS.search(output) or _GIVEN_UP.search(output):
            return output
    return output


def _parse(output: bytes) -> Measured | str:
    nodes, splits = _NODES.search(output), _SPLITS.search(output)
    if nodes is None or splits is None:
        refused = _GIVEN_UP.search(output)
        return (refused.group(1) if refused else output[-4000:]).decode("utf-8", "replace")
    lines = [(match[1].decode(), float(match[2])) for match in _COMPUTE.finditer(output[: splits.end()])]
    gpus = [size for name, size in lines if name != "CPU"]
    compute = {f"RPC{number}": size for number, size in enumerate(gpus)}
    return Measured(compute | {name: size for name, size in lines if name == "CPU"}, int(nodes[1]), int(splits[1]))
