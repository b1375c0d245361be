"""What the verbs over a model store cost, as ratios against programs that run beside them.

    python benchmarks/store.py [--rounds 7] [--only verify,memory] [--write]

Prints a Markdown table: medians of interleaved rounds, each program once a round, starts and ends of processes counted,
every file in the page cache. The store, HOME and lock are the benchmark's own, below --folder; no server runs. With
--write the table also goes into the section "The store" of docs/benchmarks.md. A part that another verb needs is one
more function in PARTS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from llmctl.core.model import ModelRef  # noqa: E402
from llmctl.library import lock_file  # noqa: E402
from llmctl.system.store import Store  # noqa: E402
from tests.library.pinned import Pinned  # noqa: E402
from tests.memory import gguf_bytes  # noqa: E402
from tests.parts import machine  # noqa: E402

PAGE = CHECKOUT / "docs" / "benchmarks.md"
HEADING = "## The store\n"
BEGIN, END = "<!-- store: begin -->", "<!-- store: end -->"
MB = 1_000_000
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is held against `most`, or against `least`."""

    what: str
    found: str
    ratio: float | None = None
    most: float | None = None
    least: float | None = None

    @property
    def line(self) -> str:
        if self.ratio is None:
            return f"| {self.what} | {self.found} | | |"
        verdict = ""
        if self.most is not None:
            verdict = f"≤ {self.most:g}: {'yes' if self.ratio <= self.most else 'NO'}"
        if self.least is not None:
            verdict = f"≥ {self.least:g}: {'yes' if self.ratio >= self.least else 'NO'}"
        return f"| {self.what} | {self.found} | {self.ratio:.2f} | {verdict} |"


@dataclass
class Bench:
    """A folder of the benchmark's own, in which nothing listens where a server would be."""

    folder: Path
    rounds: int
    environ: dict[str, str] = field(default_factory=dict)
    llmctl: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        installed = Path(sys.executable).with_name("llmctl")
        self.llmctl = [str(installed)] if installed.exists() else [sys.executable, "-m", "llmctl"]
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(CHECKOUT),
            "OLLAMA_HOST": f"127.0.0.1:{machine.free_port()}",
        }

    def store(self, name: str) -> Pinned:
        """A new store with a lock of its own."""
        config = self.folder / f"{name}-config"
        config.mkdir(parents=True)
        (config / "profile.yaml").write_text("schema: 1\nmodels: [{name: m}]\ngpu: {require: none}\n")
        store = self.folder / name
        store.mkdir()
        return Pinned(config, self.environ["OLLAMA_HOST"], Store(store))

    def file(self, name: str, size_bytes: int, seed: int) -> Path:
        """A file without holes, unlike any other."""
        path = self.folder / name
        piece = bytearray(random.Random(seed).randbytes(MB))
        with path.open("wb") as file:
            for number in range(size_bytes // MB):
                piece[:8] = number.to_bytes(8, "little")
                file.write(piece)
        return path

    def verb(self, pinned: Pinned, *words: str) -> list[str]:
        return [*self.llmctl, *words, "--store", str(pinned.store.path), "--profile", f"{pinned.folder}/profile.yaml"]

    def gguf(self, name: str, size_bytes: int, seed: int) -> Path:
        """Such a file that begins as a GGUF does: what is imported must be one."""
        path = self.file(name, size_bytes, seed)
        with path.open("r+b") as file:
            file.write(gguf_bytes.small())
        return path

    def run(self, command: list[str]) -> str:
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"error: {' '.join(command)} exited {done.returncode}\n{done.stderr}")
        return done.stdout

    def seconds(self, commands: dict[str, list[str]]) -> dict[str, float]:
        """The median of each command's time. The first round fills the caches and is not counted."""
        found: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(self.rounds + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                self.run(command)
                if number:
                    found[name].append(time.perf_counter() - started)
        return {name: statistics.median(values) for name, values in found.items()}

    def peak_bytes(self, command: list[str]) -> int:
        return int(self.run([sys.executable, "-c", PEAK, *command]))


def speed(size_bytes: int, seconds: float) -> str:
    return f"{seconds:.2f} s, {size_bytes / MB / seconds:,.0f} MB/s"


def verifying(bench: Bench) -> Iterator[Row]:
    """Against openssl, which hashes one file after the other."""
    for count, megabytes, least in ((1, 8000, 0.95), (4, 2000, 1.8)):
        pinned = bench.store(f"verify-{count}")
        for number in range(count):
            pinned.add(f"m{number}:t", bench.file("new", megabytes * MB, number))
        files = [str(pinned.path(pin.weights_digest)) for pin in pinned.lock.models]
        ours, theirs = "`llmctl verify`", "`openssl dgst -sha256`"
        found = bench.seconds({ours: bench.verb(pinned, "verify"), theirs: ["openssl", "dgst", "-sha256", *files]})
        what = f"{count} {'blob' if count == 1 else 'blobs'} of {megabytes} MB"
        for name, seconds in found.items():
            yield Row(f"{name}, {what}", speed(count * megabytes * MB, seconds))
        yield Row(f"speed of verify / openssl, {what}", "", found[theirs] / found[ours], least=least)
    yield from hashing(bench)


def hashing(bench: Bench) -> Iterator[Row]:
    """One blob so small that starting Python weighs: the hashing alone, as verify itself times it."""
    pinned = bench.store("verify-small")
    pinned.add("m:t", bench.file("new", 250 * MB, 9))
    file = str(pinned.path(pinned.lock.models[0].weights_digest))
    verify, openssl = bench.verb(pinned, "verify", "--json"), ["openssl", "dgst", "-sha256", file]
    ours, theirs = [], []
    for number in range(bench.rounds + 1):
        took = json.loads(bench.run(verify))["took_seconds"]
        started = time.perf_counter()
        bench.run(openssl)
        if number:
            ours.append(took)
            theirs.append(time.perf_counter() - started)
    mine, other = statistics.median(ours), statistics.median(theirs)
    yield Row("the hashing in `llmctl verify`, 1 blob of 250 MB", speed(250 * MB, mine))
    yield Row("`openssl dgst -sha256`, 1 blob of 250 MB", speed(250 * MB, other))
    yield Row("speed of that hashing / openssl, 1 blob of 250 MB", "", other / mine, least=0.95)


def memory(bench: Bench) -> Iterator[Row]:
    """One small blob and one large: what the size adds."""
    peaks = {}
    for megabytes in (1, 1000):
        pinned = bench.store(f"memory-{megabytes}")
        pinned.add("m:t", bench.file("new", megabytes * MB, megabytes))
        peaks[megabytes] = bench.peak_bytes(bench.verb(pinned, "verify"))
        yield Row(f"peak memory of `llmctl verify`, a blob of {megabytes} MB", f"{peaks[megabytes] / MB:.1f} MB")
    small, large = peaks.values()
    yield Row("peak memory, 1000 MB / 1 MB", "", large / small, most=1.1)


def listing(bench: Bench) -> Iterator[Row]:
    """Against `llmctl status`, both without a server, which is the quicker status of the two."""
    counts = (0, 200, 400)
    stores = {count: filled(bench, count) for count in counts}
    found: dict[str, list[float]] = {}
    for number in range(bench.rounds + 1):
        for name, command in {
            "`llmctl status`": [*bench.llmctl, "status", "--profile", f"{stores[200].folder}/profile.yaml"],
            **{f"`llmctl list` of {count} models": bench.verb(stores[count], "list") for count in counts},
        }.items():
            started = time.perf_counter()
            ended = subprocess.run(command, env=bench.environ, capture_output=True).returncode
            if ended not in {0, 3}:
                sys.exit(f"error: {' '.join(command)} exited {ended}")
            if number:
                found.setdefault(name, []).append(time.perf_counter() - started)
    status, empty, some, many = (statistics.median(values) for values in found.values())
    for name, seconds in zip(found, (status, empty, some, many), strict=True):
        yield Row(name, f"{seconds * 1000:.1f} ms")
    yield Row("`llmctl list` of 200 models / `llmctl status`", "", some / status, most=1.3)
    yield Row("what a model adds to `llmctl list`, in ms", "", (many - some) * 1000 / 200, most=0.2)


def importing(bench: Bench) -> Iterator[Row]:
    """Into an empty store, against `cp` and then `sha256sum`. Ours waits until the disk has it, cp does not."""
    megabytes = 1000
    source = bench.store("export")
    source.add("m:t", bench.gguf("new", megabytes * MB, 3))
    blob, copy, archive = (
        source.path(source.lock.models[0].weights_digest),
        bench.folder / "copy",
        bench.folder / "archive.tar",
    )
    bench.run([*bench.verb(source, "export", "m:t"), "-o", str(archive)])
    ours, theirs, peaks = [], [], []
    for number in range(bench.rounds + 1):
        target = bench.store(f"import-{number}")
        os.sync()
        started = time.perf_counter()
        peaks.append(bench.peak_bytes(bench.verb(target, "import", str(archive), "--yes")))
        between = time.perf_counter()
        shutil.rmtree(target.store.path)
        os.sync()
        copying = time.perf_counter()
        bench.run(["cp", str(blob), str(copy)])
        bench.run(["sha256sum", str(copy)])
        ended = time.perf_counter()
        copy.unlink()
        if number:
            ours.append(between - started)
            theirs.append(ended - copying)
    mine, other = statistics.median(ours), statistics.median(theirs)
    yield Row(f"`llmctl import`, 1 blob of {megabytes} MB", speed(megabytes * MB, mine))
    yield Row(f"`cp`, then `sha256sum`, 1 blob of {megabytes} MB", speed(megabytes * MB, other))
    yield Row(f"speed of import / cp and sha256sum, 1 blob of {megabytes} MB", "", other / mine, least=0.8)
    yield Row(f"peak memory of `llmctl import`, a blob of {megabytes} MB", f"{max(peaks) / MB:.1f} MB")


def filled(bench: Bench, count: int) -> Pinned:
    """A store of that many models, each with blobs of its own, eight of them pinned."""
    pinned = bench.store(f"list-{count}")
    for number in range(count):
        kept = pinned.lock
        pin = pinned.add(f"m{number}:q4_K_M", number.to_bytes(4, "little"))
        if number >= 8:
            pinned.store.remove_manifest(ModelRef.parse(pin.alias))
            pinned.lock = kept
    lock_file.write(pinned.lock_path, pinned.lock)
    return pinned


Part = Callable[[Bench], Iterator[Row]]
PARTS: dict[str, Part] = {"list": listing, "verify": verifying, "memory": memory, "import": importing}

WORDS = """\
`llmctl verify` beside `openssl dgst -sha256`, which hashes one file after the other, `llmctl import` beside
`cp` and `sha256sum`, and peak memory.

    .venv-dev/bin/python benchmarks/store.py --write
"""


def machine_line(rounds: int) -> str:
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = cpus[0].partition(":")[2].strip() if cpus else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the "
        f"start; medians of {rounds} interleaved rounds"
    )


def write(table: str) -> None:
    """Put the table between the section's markers; the section is made where it is missing."""
    page = PAGE.read_text()
    if HEADING not in page:
        page = f"{page.rstrip()}\n\n{HEADING}\n{WORDS}\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options.add_argument("--folder", help="where the blobs go, some 16 GB; default: the folder for temporary files")
    options.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    chosen = options.parse_args()
    lines = [machine_line(chosen.rounds), "", "| what | measured | ratio | limit |", "| --- | ---: | ---: | --- |"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-", dir=chosen.folder) as folder:
        bench = Bench(Path(folder), chosen.rounds)
        for name in chosen.only.split(","):
            for row in PARTS[name](bench):
                lines.append(row.line)
                print(row.line, flush=True)
    if chosen.write:
        write("\n".join(lines))


if __name__ == "__main__":
    main()
