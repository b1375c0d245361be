"""A GPU without a GPU: llama.cpp's RPC backend, which llama-server sees as a device of type GPU."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.parts import machine
from tests.parts.engine import InstalledEngine

# Leave this many MiB of the device free: more than it has, so nothing fits and llama.cpp falls back to the CPU.
NOTHING_FITS = {"LLAMA_ARG_FIT_TARGET": "1000000"}


@dataclass
class RpcGpu:
    """`environ` gives an engine this device; `alive` tells whether the stand-in still runs (it can die)."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def environ(self) -> dict[str, str]:
        return {"LLAMA_ARG_RPC": f"127.0.0.1:{self.port}"}

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _listens(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def start(engine: InstalledEngine, folder: Path) -> RpcGpu:
    port = machine.free_port()
    log_path = folder / f"rpc-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*machine.ENDS_WITH_TESTS, engine.rpc_server, "-H", "127.0.0.1", "-p", str(port)],
            env={"PATH": machine.ENVIRON.get("PATH", ""), "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    gpu = RpcGpu(port, process)
    deadline = time.monotonic() + 30
    # Its sockets are looked at, not connected to: the stand-in serves one client at a time.
    while gpu.alive and time.monotonic() < deadline:
        if _listens(process.pid, port):
            return gpu
        time.sleep(0.02)
    gpu.stop()
    raise RuntimeError(f"ggml-rpc-server did not start:\n{log_path.read_text(errors='replace')}")
