"""What the guard costs, and how long a model is away when everything dies, beside the same without a guard.

    python benchmarks/guard.py [--seconds 120] [--rounds 5] [--interval 5]

Prints a Markdown table. The server, its model (the packaged starter), HOME and port are the benchmark's own, on the
loopback. The engine is the one that the tests use (`make parts`). The guard's cost is measured after its start, while
the model is resident and idle; "bare" is `ollama serve` and one load, with the page cache as warm as the guard has it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from llmctl.system import guard_note, process, vitals  # noqa: E402
from tests.parts import engine as engine_part  # noqa: E402
from tests.parts import machine, starter  # noqa: E402

PROFILE = """\
schema: 1
server: {{host: 127.0.0.1, port: {port}, context: 2048}}
models: [{{name: small, source: "{source}"}}]
gpu: {{require: none}}
"""
LIMIT_CPU, LIMIT_BYTES, LIMIT_RATIO = 0.002, 45_000_000, 1.2
WARM_SECONDS = 12.0


@dataclass(frozen=True)
class Bench:
    """A server that llmctl started, with its model resident, and the environment in which programs find it."""

    environ: dict[str, str]
    ollama: Path
    url: str
    alias: str
    state: Path

    def owned(self) -> list[process.Process]:
        return process.marked(str(self.state))


@contextmanager
def bench() -> Iterator[Bench]:
    found = engine_part.find()
    if found is None:
        sys.exit(f"error: {engine_part.MISSING}")
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as name:
        folder, port = Path(name), machine.free_port()
        profile = folder / "bench.yaml"
        profile.write_text(PROFILE.format(port=port, source=starter.path()))
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "PYTHONPATH": str(CHECKOUT),
            "OLLAMA_MODELS": str(folder / "models"),
            "LLMCTL_ENGINE": str(found.ollama),
            "LLMCTL_STATE_DIR": str(folder / "state"),
        }
        try:
            llmctl(environ, "up", str(profile), "--yes")
            status = json.loads(llmctl(environ, "status", "--json"))
            yield Bench(environ, found.ollama, status["base_url"], status["models"][0]["alias"], folder / "state")
        finally:
            subprocess.run([*COMMAND, "down"], env=environ, capture_output=True, check=False)


COMMAND = [sys.executable, "-m", "llmctl"]


def llmctl(environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: llmctl {' '.join(arguments)} exited {done.returncode}\n{done.stderr}")
    return done.stdout


@contextmanager
def guard(made: Bench, interval: float) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        [*COMMAND, "guard", "--interval", str(interval)], env=made.environ, stdout=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def await_ready(made: Bench, since: float = 0.0) -> None:
    """Until the guard's note, written after `since` by the wall clock, says that everything is as it should be."""
    path = made.state / "run" / guard_note.NAME
    while True:
        note = guard_note.read(made.state / "run")
        if note is not None and note.alive and note.ready and path.stat().st_mtime >= since:
            return
        time.sleep(0.01)


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def cost(made: Bench, seconds: float, interval: float) -> list[str]:
    with guard(made, interval) as running:
        await_ready(made)
        time.sleep(WARM_SECONDS)
        before, began = vitals.read(running.pid), time.monotonic()
        time.sleep(seconds)
        after, took = vitals.read(running.pid), time.monotonic() - began
        assert before is not None
        assert after is not None
        share = (after.cpu_seconds - before.cpu_seconds) / took
        resident, peak = memory(running.pid, "VmRSS"), memory(running.pid, "VmHWM")
    return [
        row(
            f"CPU time of the guard, a look every {interval:g} s, of one core",
            f"{share:.3%}",
            share,
            LIMIT_CPU,
            "0.2 %",
        ),
        row("resident memory of the guard", f"{resident / 1e6:.1f} MB", resident, LIMIT_BYTES, "45 MB"),
        row("its peak since the start", f"{peak / 1e6:.1f} MB", peak, LIMIT_BYTES, "45 MB"),
    ]


def row(what: str, found: str, value: float, limit: float, limit_words: str) -> str:
    return f"| {what} | {found} | ≤ {limit_words}: {'yes' if value <= limit else 'NO'} |"


def kill_everything(made: Bench) -> None:
    for found in made.owned():
        with suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGKILL)


def load(made: Bench) -> None:
    """Until the server answers, then until the model is there."""
    while True:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{made.url}/api/version").read()
            break
        time.sleep(0.01)
    body = json.dumps({"model": made.alias, "stream": False}).encode()
    urllib.request.urlopen(f"{made.url}/api/generate", body).read()


def bare(made: Bench) -> float:
    """`ollama serve` as a shell starts it, and one load."""
    environ = {**made.environ, "OLLAMA_HOST": made.url.removeprefix("http://"), "OLLAMA_CONTEXT_LENGTH": "2048"}
    began = time.monotonic()
    running = subprocess.Popen(
        [str(made.ollama), "serve"], env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    load(made)
    took = time.monotonic() - began
    running.terminate()
    running.wait()
    return took


def guarded(made: Bench, interval: float) -> float:
    """Everything but the guard killed at once, until it says that the model is resident, proved, and has answered."""
    with guard(made, interval):
        await_ready(made)
        began, wall = time.monotonic(), time.time()
        kill_everything(made)
        await_ready(made, wall)
        return time.monotonic() - began


def away(made: Bench, rounds: int, interval: float) -> list[str]:
    programs: dict[str, Callable[[], float]] = {"guard": lambda: guarded(made, interval), "bare": lambda: bare(made)}
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        # Or the guard would start the server twice within a minute, and wait in between as it does on purpose.
        llmctl(made.environ, "up")
        for name, program in programs.items():
            found[name].append(program())
            if name == "guard":
                kill_everything(made)
    llmctl(made.environ, "up")
    mine, theirs = statistics.median(found["guard"]), statistics.median(found["bare"])
    limit = LIMIT_RATIO * theirs + interval
    return [
        f"| bare `ollama serve` and a load | {theirs:.1f} s | |",
        row(
            f"server and runner killed, until resident again, a look every {interval:g} s",
            f"{mine:.1f} s",
            mine,
            limit,
            f"1.2 x bare + interval = {limit:.1f} s",
        ),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seconds", type=float, default=120.0, help="how long the cost is measured")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--interval", type=float, default=5.0)
    given = options.parse_args()
    with bench() as made:
        load_now = os.getloadavg()[0]
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load_now:.1f}\n"
        )
        print("| what | measured | limit |\n| --- | ---: | --- |", flush=True)
        print("\n".join(cost(made, given.seconds, given.interval)), flush=True)
        print("\n".join(away(made, given.rounds, given.interval)), flush=True)


if __name__ == "__main__":
    main()
