"""What `llmctl fit` costs, as ratios against programs that run beside it.

    python benchmarks/fit.py [--rounds 7] [--gguf-python PYTHON]

The model is the 70B shape with a vocabulary of 128,256 tokens, as a sparse file. PYTHON is one that has the `gguf`
package; without it that row is left out. Prints a Markdown table: medians of user and system time, and peak memory.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import subprocess
import sys
import tempfile
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

TOKENS, MERGES = 128256, 280147
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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--gguf-python")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = with_vocabulary(Path(folder) / "70b.gguf")
        fit = [sys.executable, "-m", "llmctl", "fit", str(file), "--context", "4096", "--gpu"]
        commands = {
            "llmctl --help": [sys.executable, "-m", "llmctl", "--help"],
            "fit, 24 GiB (in part)": [*fit, "24GiB"],
            "fit, 48 GiB (in full)": [*fit, "48GiB"],
            "fit --table, 48 GiB": [*fit, "48GiB", "--table"],
        }
        if chosen.gguf_python:
            commands["the gguf package reads the header"] = [chosen.gguf_python, "-c", READ_WITH_GGUF, str(file)]
        seen: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for _ in range(chosen.rounds):
            for name, command in commands.items():
                seen[name].append(cost(command))
        report(seen)
        model = Model(from_gguf(header(file)), file.stat().st_size)
        solve.largest_context(model, Asked(4096, cards=(Card("card", None, 48 << 30),)))
        print(f"\nThe largest context took {model.evaluations} emulated graphs.")


def report(seen: dict[str, list[tuple[float, int]]]) -> None:
    base = statistics.median(seconds for seconds, _ in seen["llmctl --help"])
    print("| what | processor time | of `--help` | peak memory |\n|---|---|---|---|")
    for name, runs in seen.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        memory = max(memory for _, memory in runs)
        print(f"| {name} | {seconds:.2f} s | {seconds / base:.1f} | {memory / (1 << 20):.0f} MiB |")


if __name__ == "__main__":
    main()
