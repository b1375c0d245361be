"""How fast the command line is, as ratios against programs that run beside it.

    python benchmarks/cli.py [--rounds 15] [--without-llm]

Prints a Markdown table. Everything is measured in rounds, each program once a round, so that whatever else the machine
does meets all of them; medians are compared. The server, its model (the packaged starter), HOME and port are the
benchmark's own, on the loopback. The engine is the one that the tests use (`make parts`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from tests.parts import engine as engine_part  # noqa: E402
from tests.parts import machine, starter  # noqa: E402

PROMPT = "The capital of France is"
MODEL = "bench"
TOKENS = 8
STREAMED_TOKENS = 120
TOKEN_SECONDS = 0.02
SECTION_SECONDS = 180.0
LLM = ["llm==0.36", "llm-ollama==0.19.1"]
CACHE = machine.CACHE.with_name("llmctl-benchmarks")
PROFILE = """\
schema: 1
server: {{host: 127.0.0.1, port: {port}, context: 2048}}
models: [{{name: small, source: "{source}"}}]
gpu: {{require: none}}
"""
BARE_HTTPX = """
import json, sys, httpx
with httpx.stream("POST", sys.argv[1] + "/api/generate", json=json.loads(sys.argv[2]), timeout=None) as answer:
    for line in answer.iter_lines():
        sys.stdout.write(json.loads(line).get("response", ""))
        sys.stdout.flush()
"""
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[2:], stdin=open(sys.argv[1], "rb"), capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""

Environment = dict[str, str]


@dataclass(frozen=True)
class Bench:
    """A server with its model resident, and the environment in which programs find it."""

    llmctl: list[str]
    ollama: Path
    url: str
    environ: Environment
    folder: Path


@dataclass(frozen=True)
class Row:
    what: str
    found: str
    ratio: float | None
    limit: float | None

    @property
    def line(self) -> str:
        if self.ratio is None:
            return f"| {self.what} | {self.found} | | |"
        verdict = "" if self.limit is None else f"≤ {self.limit:g}: {'yes' if self.ratio <= self.limit else 'NO'}"
        return f"| {self.what} | {self.found} | {self.ratio:.2f} | {verdict} |"


def llmctl_command() -> list[str]:
    installed = Path(sys.executable).with_name("llmctl")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "llmctl"]


@contextmanager
def bench() -> Iterator[Bench]:
    """`llmctl up` with a profile and a HOME of the benchmark's own; `llmctl down` at the end."""
    found = engine_part.find()
    if found is None:
        sys.exit(f"error: {engine_part.MISSING}")
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as name:
        folder = Path(name)
        port = machine.free_port()
        profile = folder / "bench.yaml"
        profile.write_text(PROFILE.format(port=port, source=starter.path()))
        url = f"http://127.0.0.1:{port}"
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "PYTHONPATH": str(CHECKOUT),
            "OLLAMA_HOST": url,
            "OLLAMA_MODELS": str(folder / "models"),
            "LLMCTL_ENGINE": str(found.ollama),
        }
        made = Bench(llmctl_command(), found.ollama, url, environ, folder)
        try:
            run([*made.llmctl, "up", str(profile), "--yes"], environ)
            alias = json.loads(run([*made.llmctl, "status", "--json"], environ))["models"][0]["alias"]
            post(url, "create", {"model": MODEL, "from": alias, "parameters": settings(TOKENS), "stream": False})
            yield made
        finally:
            subprocess.run([*made.llmctl, "down"], env=environ, capture_output=True, check=False)


def settings(tokens: int) -> dict[str, int]:
    return {"num_predict": tokens, "temperature": 0, "seed": 1}


def run(command: list[str], environ: Environment) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)} exited {done.returncode}\n{done.stderr}")
    return done.stdout


def post(url: str, path: str, body: dict[str, object]) -> None:
    request = urllib.request.Request(f"{url}/api/{path}", json.dumps(body).encode())
    urllib.request.urlopen(request).read()


def interleaved(programs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each program's figures, one a round; stops early when the section has taken its time."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    deadline = time.monotonic() + SECTION_SECONDS
    for number in range(rounds + 1):
        if number > 3 and time.monotonic() > deadline:
            break
        for name, program in programs.items():
            figure = program()
            # The first round fills the caches.
            if number:
                found[name].append(figure)
    return found


def wall(command: list[str], environ: Environment) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        run(command, environ)
        return time.perf_counter() - started

    return measure


def medians(programs: dict[str, list[str]], environ: Environment, rounds: int) -> dict[str, float]:
    figures = interleaved({name: wall(command, environ) for name, command in programs.items()}, rounds)
    return {name: statistics.median(values) for name, values in figures.items()}


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def start_up(made: Bench, rounds: int) -> list[Row]:
    programs = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import typer": [sys.executable, "-c", "import typer"],
        "llmctl --version": [*made.llmctl, "--version"],
        "llmctl status": [*made.llmctl, "status"],
    }
    found = medians(programs, made.environ, rounds)
    limits = {"llmctl --version": 3.0, "llmctl status": 12.0}
    base = found["python -c pass"]
    return [Row(f"`{name}`", milliseconds(value), value / base, limits.get(name)) for name, value in found.items()]


def body(tokens: int) -> str:
    return json.dumps({"model": MODEL, "prompt": PROMPT, "options": settings(tokens)})


def asking(made: Bench, rounds: int, llm: Path | None) -> list[Row]:
    ask = [*made.llmctl, "ask", "-m", MODEL, "--max-tokens", str(TOKENS), PROMPT]
    programs = {
        "curl": ["curl", "-sN", f"{made.url}/api/generate", "-d", body(TOKENS)],
        "ollama run": [str(made.ollama), "run", MODEL, PROMPT],
        "a bare httpx script": [sys.executable, "-c", BARE_HTTPX, made.url, body(TOKENS)],
        "llmctl ask": ask,
    }
    if llm is not None:
        programs["llm with llm-ollama"] = [str(llm), "-m", f"ollama/{MODEL}:latest", "--no-log", PROMPT]
    if shutil.which("curl") is None:
        del programs["curl"]
    found = medians(programs, made.environ, rounds)
    rows = [Row(f"{name}, {TOKENS} tokens", milliseconds(value), None, None) for name, value in found.items()]
    mine = found["llmctl ask"]
    for name, limit in (
        ("ollama run", 1.8),
        ("curl", None),
        ("a bare httpx script", None),
        ("llm with llm-ollama", 0.3),
    ):
        if name in found:
            rows.append(Row(f"`llmctl ask` / {name}", "", mine / found[name], limit))
    return rows


def gaps(command: list[str], environ: Environment) -> list[float]:
    """Seconds between one arrival on stdout and the next."""
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    arrivals = []
    while os.read(process.stdout.fileno(), 65536):
        arrivals.append(time.perf_counter())
    process.stdout.close()
    process.wait()
    return [later - earlier for earlier, later in itertools.pairwise(arrivals)]


class Steady(BaseHTTPRequestHandler):
    """Sends a token every 20 ms, so that the gaps seen are the client's and not those of a model on a busy machine."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        started = time.perf_counter()
        for number in range(STREAMED_TOKENS):
            time.sleep(max(0.0, started + number * TOKEN_SECONDS - time.perf_counter()))
            self.line({"response": " word", "done": False})
        self.line({"response": "", "done": True, "done_reason": "stop", "eval_count": STREAMED_TOKENS})
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def line(self, fields: dict[str, object]) -> None:
        data = json.dumps(fields).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def steady(made: Bench) -> Iterator[tuple[str, Environment]]:
    """Where tokens come steadily, and an environment in which `llmctl up` was run against that place."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Steady)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    state = json.loads(next(made.folder.rglob("state.json")).read_text())
    folder = made.folder / "steady"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(state | {"base_url": url}))
    yield url, {**made.environ, "LLMCTL_STATE_DIR": str(folder)}
    server.shutdown()
    server.server_close()


def streaming(made: Bench, rounds: int) -> list[Row]:
    if shutil.which("curl") is None:
        return []
    pooled: dict[str, list[float]] = {"curl": [], "llmctl ask": []}
    with steady(made) as (url, environ):
        for _ in range(max(3, rounds // 2)):
            pooled["curl"] += gaps(["curl", "-sN", f"{url}/api/generate", "-d", body(STREAMED_TOKENS)], environ)
            pooled["llmctl ask"] += gaps([*made.llmctl, "ask", PROMPT], environ)
    worst = {name: percentile(values, 0.99) for name, values in pooled.items()}
    rows = [
        Row(f"{name}: gaps, a token every 20 ms: median, p99", both, None, None)
        for name, values in pooled.items()
        for both in [f"{milliseconds(statistics.median(values))}, {milliseconds(worst[name])}"]
    ]
    more = worst["llmctl ask"] - worst["curl"]
    return [*rows, Row("p99 gap of `llmctl ask` less curl's, in ms", "", more * 1000, 2.0)]


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(part * len(values)) - 1)]


def memory(made: Bench) -> list[Row]:
    """The prompt is refused for its length, after it has gone through llmctl."""
    peaks = {}
    for size_bytes in (100, 10_000_000):
        prompt = made.folder / "prompt"
        prompt.write_bytes(b"word " * (size_bytes // 5))
        command = [sys.executable, "-c", PEAK, str(prompt), *made.llmctl, "ask", "--max-tokens", "1"]
        peaks[size_bytes] = int(run(command, made.environ))
    small, large = peaks.values()
    return [
        Row("peak memory of `llmctl ask`, prompt of 100 bytes", f"{small / 1e6:.1f} MB", None, None),
        Row("peak memory of `llmctl ask`, prompt of 10 MB", f"{large / 1e6:.1f} MB", None, None),
        Row("what the 10 MB added, of their own size", "", (large - small) / 1e7, 1.0),
    ]


def doctoring(made: Bench, rounds: int) -> list[Row]:
    """`doctor` looks at everything that `status` and `ollama ps` show, and at the rest."""
    programs = {
        "ollama ps": [str(made.ollama), "ps"],
        "llmctl status": [*made.llmctl, "status"],
        "llmctl doctor": [*made.llmctl, "doctor"],
    }
    found = medians(programs, made.environ, rounds)
    mine = found["llmctl doctor"]
    rows = [Row(f"`{name}`, healthy", milliseconds(value), None, None) for name, value in found.items()]
    rows += [Row(f"`llmctl doctor` / `{name}`", "", mine / found[name], None) for name in list(found)[:2]]
    rows.append(Row("`llmctl doctor` on a healthy machine, of the 1.5 s allowed", "", mine / 1.5, 1.0))
    for name, command in programs.items():
        peak = int(run([sys.executable, "-c", PEAK, os.devnull, *command], made.environ))
        rows.append(Row(f"peak memory of `{name}`", f"{peak / 1e6:.1f} MB", None, None))
    return rows


def llm_program() -> Path:
    """`llm` in an environment of its own, in the benchmark's cache."""
    folder = CACHE / "-".join(LLM)
    program = folder / "bin" / "llm"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *LLM], check=True)
        (folder / "installed").touch()
    return program


def machine_line(made: Bench) -> str:
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    version = json.loads(urllib.request.urlopen(f"{made.url}/api/version").read())["version"]
    name = cpus[0] if cpus else platform.machine()
    python = f"Python {platform.python_version()}"
    return f"{name}, {os.cpu_count()} cores, {python}, Ollama {version}, load {os.getloadavg()[0]:.1f} at the start"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--without-llm", action="store_true", help="needs no package registry")
    given = options.parse_args()
    llm = None if given.without_llm else llm_program()
    with bench() as made:
        print(f"{machine_line(made)}; medians of {given.rounds} interleaved rounds\n")
        print("| what | measured | ratio | limit |\n| --- | ---: | ---: | --- |")
        show(start_up(made, given.rounds))
        show(asking(made, given.rounds, llm))
        show(streaming(made, given.rounds))
        show(memory(made))
        show(doctoring(made, given.rounds))


def show(rows: list[Row]) -> None:
    for row in rows:
        print(row.line, flush=True)


if __name__ == "__main__":
    main()
