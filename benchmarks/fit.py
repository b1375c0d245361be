"""What `llmctl fit` costs, as ratios against programs that run beside it.

    python benchmarks/fit.py [--rounds 7] [--gguf-python PYTHON] [--write]

The model is the 70B shape with a vocabulary of 128,256 tokens, as a sparse file. PYTHON is one that has the `gguf`
package; else it is installed into an environment in the benchmarks' own cache. Prints a Markdown table: medians of
interleaved rounds of processor time (user and system, which a busy machine changes little), and peak memory; with
--write also under the heading "fit" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from llmctl.core.memory import solve  # noqa: E402
from llmctl.core.memory.decide import Asked, Card  # noqa: E402
from llmctl.core.memory.needs import Model  # noqa: E402
from llmctl.core.memory.shape import from_gguf  # noqa: E402
from llmctl.system.gguf_file import header  # noqa: E402
from tests.memory import gguf_bytes as gguf  # noqa: E402
from tests.memory import published  # noqa: E402
from tests.parts import machine  # noqa: E402

PAGE = CHECKOUT / "docs" / "benchmarks.md"
HEADING = "## fit\n"
GGUF = "gguf==0.19.0"
CACHE = machine.CACHE.with_name("llmctl-benchmarks")
TOKENS, MERGES = 128256, 280147
MAXIMUM_EVALUATIONS = 50
CARDS_GIB = ((8,), (12,), (16,), (24,), (32,), (48,), (12, 12), (24, 24), (24, 12), (16, 16, 16))
STRING, ARRAY, INT32 = 8, 9, 5
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
READ_WITH_GGUF = "import sys; from gguf import GGUFReader; GGUFReader(sys.argv[1])"


def with_vocabulary(path: Path) -> Path:
    model = published.MODELS["llama-3.3-70b"]
    plain = {name: value for name, value in published._keys(model).items() if not name.startswith("tokenizer")}
    keys = [published._key(name, value) for name, value in plain.items()]
    keys.append(gguf.key("tokenizer.ggml.model", STRING, gguf.text("gpt2")))
    keys.append(texts("tokenizer.ggml.tokens", [f"token{number}" for number in range(TOKENS)]))
    types = struct.pack("<IQ", INT32, TOKENS) + struct.pack("<i", 1) * TOKENS
    keys.append(gguf.key("tokenizer.ggml.token_type", ARRAY, types))
    keys.append(texts("tokenizer.ggml.merges", [f"left{number} right{number}" for number in range(MERGES)]))
    offset, tensors = 0, []
    for name, kind, shape in published._decoder(model):
        type_id, block, size = published._TYPES[kind]
        tensors.append(gguf.tensor(name, shape, type_id, offset))
        offset += -(-(shape[0] * (shape[1] if len(shape) > 1 else 1) // block * size) // 32) * 32
    content = gguf.file(keys, tensors)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + offset)
    return path


def texts(name: str, values: list[str]) -> bytes:
    return gguf.key(name, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(gguf.text, values)))


def cost(command: list[str]) -> tuple[float, int]:
    """Seconds of processor time, and the peak of resident memory in bytes.

    A small program starts the measured one: a child begins with the peak of whoever forked it.
    """
    run = subprocess.run([sys.executable, "-c", PEAK, *command], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    seconds, kib = run.stdout.split()
    return float(seconds), int(kib) * 1024


@dataclass(frozen=True)
class Limit:
    """`row` takes at most `times` what `other` takes."""

    row: str
    times: float
    other: str


HELP, PART, FULL, TABLE = (
    "`llmctl --help`",
    "`fit`, 24 GiB (in part)",
    "`fit`, 48 GiB (in full)",
    "`fit --table`, 48 GiB",
)
OTHERS = "the gguf package reads the header"
LIMITS = (Limit(PART, 3, HELP), Limit(FULL, 3, HELP), Limit(FULL, 0.2, OTHERS), Limit(TABLE, 3, FULL))
MAXIMUM_MEGABYTES = 60


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--gguf-python", type=Path, help="a Python that has the gguf package")
    options.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    chosen = options.parse_args()
    other = chosen.gguf_python or gguf_python()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measured(with_vocabulary(Path(folder) / "70b.gguf"), other, chosen.rounds)
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {GGUF}, load {load:.1f} at the start; medians of "
        f"{chosen.rounds} interleaved rounds",
        "",
        *report(found),
        *evaluations(),
    ]
    print("\n".join(lines))
    if chosen.write:
        write("\n".join(lines))


def gguf_python() -> Path:
    """The `gguf` package in an environment of its own, in the benchmarks' cache."""
    folder = CACHE / GGUF
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", GGUF], check=True)
        (folder / "installed").touch()
    return python


def measured(file: Path, other: Path, rounds: int) -> dict[str, tuple[float, int]]:
    """Median of the processor time and peak of the memory of each program; the first round fills caches."""
    program = [sys.executable, "-m", "llmctl"]
    fit = [*program, "fit", str(file), "--context", "4096", "--gpu"]
    commands = {
        HELP: [*program, "--help"],
        PART: [*fit, "24GiB"],
        FULL: [*fit, "48GiB"],
        TABLE: [*fit, "48GiB", "--table"],
        OTHERS: [str(other), "-c", READ_WITH_GGUF, str(file)],
    }
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            figures = cost(command)
            if number:
                seen[name].append(figures)
    return {name: (statistics.median(s for s, _ in runs), max(size for _, size in runs)) for name, runs in seen.items()}


def report(found: Mapping[str, tuple[float, int]]) -> Iterator[str]:
    yield "| what | measured | ratio | limit |\n| --- | ---: | ---: | --- |"
    for name, (seconds, peak_bytes) in found.items():
        yield f"| {name} | {seconds * 1000:.0f} ms, {peak_bytes / 1e6:.1f} MB | | |"
    for limit in LIMITS:
        yield row(f"{limit.row} / {limit.other}", "", found[limit.row][0] / found[limit.other][0], limit.times)
    peak = max(found[name][1] for name in (PART, FULL, TABLE)) / 1e6
    yield row("peak memory of `fit` in MB", f"{peak:.1f} MB", peak, MAXIMUM_MEGABYTES)


def evaluations() -> Iterator[str]:
    """How many graphs the search for the largest context emulates: the most, over every published shape and card."""
    most, where = 0, ""
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in published.MODELS.items():
            file = published.write(shape, Path(folder) / f"{name}.gguf")
            for sizes in CARDS_GIB:
                model = Model(from_gguf(header(file)), file.stat().st_size)
                cards = tuple(Card(f"card {number}", None, gib << 30) for number, gib in enumerate(sizes))
                solve.largest_context(model, Asked(4096, cards=cards))
                most, where = max((most, where), (model.evaluations, f"{name}, {'+'.join(map(str, sizes))} GiB"))
    what = (
        f"emulated graphs for the largest context, the most of {len(published.MODELS)} models on "
        f"{len(CARDS_GIB)} machines"
    )
    yield row(what, where, most, MAXIMUM_EVALUATIONS)


def row(what: str, figure: str, ratio: float, limit: float) -> str:
    return f"| {what} | {figure} | {ratio:.3g} | ≤ {limit:g}: {'yes' if ratio <= limit else 'NO'} |"


def write(table: str) -> None:
    """Replace the section, or append it."""
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n"
    before, _, rest = page.partition(HEADING)
    _, following, after = rest.partition("\n## ")
    section = f"{HEADING}\n{WORDS}\n{table}\n"
    PAGE.write_text(before.rstrip() + "\n\n" + section + following + after)


WORDS = """\
`llmctl fit` on the 70B shape with a vocabulary of 128,256 tokens and 280,147 merges; processor time and peak memory.

    .venv-dev/bin/python benchmarks/fit.py --write
"""


if __name__ == "__main__":
    main()
