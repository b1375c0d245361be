"""How far the memory model is from llama.cpp's own words, beside gguf-parser-go on the same settings.

    python benchmarks/accuracy.py [--check]

Writes docs/accuracy.md. The reference is what llama-server printed when the cells of tests/memory/cells were recorded;
both predictions are computed anew. Needs Go, for benchmarks/accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import accuracy_published, cuda_cells  # noqa: E402
from llmctl.core.memory.fit import PROVED_VERSIONS  # noqa: E402
from llmctl.core.memory.settings import Settings  # noqa: E402
from tests.memory import computing, placing, published  # noqa: E402

MIB = 1 << 20
PAGE = CHECKOUT / "docs" / "accuracy.md"
PARSER = Path(__file__).with_name("accuracy")
# The server prints two places.
EXACT_MIB = 0.011


@dataclass(frozen=True)
class Pair:
    """One figure in MiB: what the server printed, and what was predicted.

    `plain` settings (f16, flash attention, all on one GPU) have neither copies nor staging on CUDA.
    """

    architecture: str
    measured: float
    ours: float
    others: float = math.nan
    plain: bool = False

    @property
    def error(self) -> float:
        return abs(self.ours - self.measured)

    @property
    def others_error(self) -> float:
        return abs(self.others - self.measured)


@dataclass(frozen=True)
class Start:
    """Settings that gguf-parser-go can be asked for: all layers on one GPU, or none."""

    model: str
    settings: Settings
    gpu: bool

    @property
    def plain(self) -> bool:
        settings = self.settings
        return self.gpu and settings.flash and settings.cache_k == settings.cache_v == "f16"

    def line(self, folder: Path) -> str:
        settings = self.settings
        facts = {
            "file": str(folder / f"{self.model}.gguf"),
            "context": settings.context * settings.parallel,
            "parallel": settings.parallel,
            "batch": settings.ubatch,
            "cache_k": settings.cache_k,
            "cache_v": settings.cache_v,
            "flash_attention": settings.flash,
            "gpu": self.gpu,
        }
        return json.dumps(facts)


@dataclass(frozen=True)
class Placed:
    """The placement cells of one architecture: `equal` in every trial of the fit and in the layers that it chose."""

    architecture: str
    equal: bool
    refused: bool


def architecture(model: str) -> str:
    found = published.MODELS[model]
    return "mixtral (llama)" if found.architecture == "llama" and "expert_count" in found.more else found.architecture


def estimated(starts: Sequence[Start], folder: Path) -> list[dict[str, int]]:
    """Bytes of weights, cache and compute as gguf-parser-go has them."""
    with tempfile.TemporaryDirectory() as built:
        program = Path(built) / "accuracy"
        subprocess.run(["go", "build", "-o", str(program), "."], cwd=PARSER, check=True)
        lines = "\n".join(start.line(folder) for start in starts)
        done = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compute_pairs(folder: Path) -> tuple[list[Pair], list[Pair], int]:
    """Every compute buffer of every device; those beside gguf-parser-go's; and how many settings are refused."""
    every, starts, beside, refused = [], [], [], 0
    for record in computing.load():
        cell, measured = computing.cell_of(record), record["measured"]
        if measured is None:
            continue
        compute = computing.predicted(cell, computing.shape_of(folder / f"{cell.model}.gguf"), whole=False)
        if measured == "refused" or compute.refused:
            assert measured == "refused", cell
            assert compute.refused, cell
            refused += 1
            continue
        kind, ours = architecture(cell.model), computing.mebibytes(compute.bytes)
        sizes = measured["compute_mib"]
        every += [Pair(kind, sizes.get(name, 0), ours.get(name, 0)) for name in sizes.keys() | ours.keys()]
        full = cell.gpus == 1 and cell.on_gpu > published.MODELS[cell.model].layers and not cell.experts_on_host
        # gguf-parser-go knows no unified cache.
        if (full or not cell.gpus) and not cell.settings.unified:
            device = "RPC0" if full else "CPU"
            starts.append(Start(cell.model, cell.settings, full))
            beside.append(Pair(kind, sizes[device], ours.get(device, 0), plain=starts[-1].plain))
    others = [each["compute_bytes"] / MIB for each in estimated(starts, folder)]
    return every, [replace(pair, others=other) for pair, other in zip(beside, others, strict=True)], refused


def placement_pairs(folder: Path) -> tuple[list[Placed], list[Pair]]:
    """Whether each fit is the same in every trial; and the totals (weights, cache, compute) of its first trial.

    The first trial has every layer on the GPU. The server prints it in whole MiB, so each part is rounded down.
    """
    placed, starts, totals = [], {}, {}
    for record in json.loads(placing.RECORD.read_text()):
        cell = placing.Cell(**{**record["cell"], "targets_mib": tuple(record["cell"]["targets_mib"])})
        kind = architecture(cell.model)
        if isinstance(record["measured"], str):
            placed.append(Placed(kind, equal=False, refused=True))
            continue
        measured = placing.Outcome(**record["measured"])
        ours = placing.predict(cell, folder / f"{cell.model}.gguf", record["free_bytes"])
        placed.append(Placed(kind, placing.equal(ours, measured), refused=False))
        if len(cell.targets_mib) < 2:
            gpu = bool(cell.targets_mib)
            settings = Settings(
                cell.context, cell.parallel, cell.ubatch, cell.cache, cell.cache, cell.flash_attention,
                "rpc" if gpu else "cpu",
            )  # fmt: skip
            start = Start(cell.model, settings, gpu)
            starts[start] = kind
            totals[start] = sum(measured.trials[0][0]), sum(ours.trials[0][0])
    found = estimated(list(starts), folder)
    # As the server does: each part in whole MiB.
    others = [sum(size // MIB for size in each.values()) for each in found]
    return placed, [
        Pair(kind, *totals[start], other, start.plain)
        for (start, kind), other in zip(starts.items(), others, strict=True)
    ]


def by_architecture(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    groups = defaultdict(list)
    for pair in pairs:
        groups[pair.architecture].append(pair)
    return {name: groups[name] for name in sorted(groups)} | {
        "**all**": [pair for each in groups.values() for pair in each]
    }


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(part * len(values)) - 1)]


def own_table(every: Sequence[Pair], placed: Sequence[Placed]) -> Iterable[str]:
    yield "| architecture | compute buffers | exact | largest error | fits | the same in every trial |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, pairs in by_architecture(every).items():
        mine = [each for each in placed if not each.refused and name in {each.architecture, "**all**"}]
        same = f"{len(mine)} | {sum(each.equal for each in mine)}" if mine else "- | -"
        exact, worst = sum(pair.error < EXACT_MIB for pair in pairs), max(pair.error for pair in pairs)
        yield f"| {name} | {len(pairs)} | {exact} | {worst:.2f} MiB | {same} |"


def beside_table(pairs: Sequence[Pair]) -> Iterable[str]:
    yield "| architecture | cells | ours: exact | ours: largest | gguf-parser-go: median | p95 | largest |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    groups = by_architecture(pairs) | {
        "**f16, flash attention, all on the GPU**": [pair for pair in pairs if pair.plain]
    }
    for name, group in groups.items():
        exact, worst = sum(pair.error < EXACT_MIB for pair in group), max(pair.error for pair in group)
        other = [pair.others_error for pair in group]
        figures = f"{statistics.median(other):,.2f} | {percentile(other, 0.95):,.2f} | {max(other):,.2f}"
        yield f"| {name} | {len(group)} | {exact} | {worst:.2f} | {figures} |"


def page(folder: Path) -> str:
    every, beside, refused = compute_pairs(folder)
    placed, totals = placement_pairs(folder)
    return TEXT.format(
        versions=" and ".join(PROVED_VERSIONS),
        engine=computing.ENGINE,
        cells=len(computing.load()),
        fits=len(placed),
        refused=refused,
        low=sum(pair.others < 0.99 * pair.measured for pair in totals),
        total_cells=len(totals),
        own="\n".join(own_table(every, placed)),
        totals="\n".join(beside_table(totals)),
        compute="\n".join(beside_table(beside)),
        q4_k_m=accuracy_published.llama_as_q4_k_m(folder),
        published="\n".join(accuracy_published.table(folder)),
        hardware="\n".join(cuda_cells.table()),
    )


TEXT = """\
# How exact `llmctl fit` is

Written by `python benchmarks/accuracy.py`; every figure is computed by it. Machine: 2 cores, Debian 12.

The reference is llama-server itself ({engine}): started on a sparse file with the header of a published model, it says
what it will allocate before it allocates it. {cells} settings of compute buffers and {fits} fits are recorded in
`tests/memory/cells`, with the command of each. Not every prediction was blind: in the first blind run 138 of the 146
fits were equal, and the code was corrected for the others; the two-GPU compute cells were corrected too, and after that
a fresh random set was predicted and committed before it was measured. Recorded is the state after the corrections.
{refused} of the settings are refused by llama-server, and are predicted to be refused.
The rules are proved for Ollama {versions}. For another version `llmctl fit` says `unverified for <version>`.

## What the words mean

- **exact**: equal to the engine's own figure, to the last digit that it prints, on the CPU and on ggml's RPC backend:
  compute buffers for every architecture below; weights, cache and state for those that have fits below (the trials
  print them). On CUDA, weights and cache follow CUDA's own padding and agree with the published cases.
- **bound**: not below the truth. Compute buffers on CUDA are bounds. CUDA pads rows, copies quantized keys and values
  to 16 bits, stages the weights of host layers on the GPU, fuses operations, and decides by card which flash attention
  it has; the CPU and RPC backends do none of this, so cells measured on them prove nothing about it. What
  ggml-cuda's source says of these is emulated, and room is added for what a published log had on top.
- **unknown**: the graph of that architecture is not drawn here. Weights are told, and cache where the header says it.

## Every recorded cell

Each compute buffer of each device (CPU, one GPU stand-in, two; all layers there, some, none), and each fit: every trial
of llama.cpp's own search with its bytes per device, and the layers it ends with.

{own}

## Beside gguf-parser-go 0.28.1, on the same cells

Absolute errors in MiB. Its figures come from its library (`benchmarks/accuracy`), given the same file and settings:
all layers on one GPU, or none. What it adds for the process itself is left out, in its favour.
It estimates for CUDA, which takes more than the reference where the cache is quantized or flash attention is off, so
not all of the difference is its error there; the last row has the settings without such differences.

Weights, cache and compute together, as llama-server's memory breakdown has them (whole MiB). In {low} of {total_cells}
cells gguf-parser-go is too low by more than 1 %.

{totals}

Compute buffers alone (the server prints two places):

{compute}

## Published cases

What others logged on real cards, and what is predicted from the same model's shape. MiB. On CUDA a compute buffer is a
bound: it must not be below what was logged. Read these rows with three reservations:

- The lengths of DeepSeek Coder V2, Gemma 4, Qwen3.5, Qwen3.6 and GLM 5.2 were not read from those files. Where a log
  does not name them they were chosen so that its figures come out: these rows test how the cache grows with context,
  slots and cache type, not whether such a header is read rightly.
- The Llama 3.1 8B row is passed on as Q4_K_M. Its weights are those that llama-quantize makes for Q4_0 (as Q4_K_M they
  would be {q4_k_m}), so it is compared as that.
- The cards of the Qwen3 0.6B and OLMoE rows are AMD's, and the logs do not say how many layers were on the GPU in part;
  half are assumed, and that q8_0 means the cache too.

{published}

## On real hardware

{hardware}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--check", action="store_true", help="only say whether docs/accuracy.md is what it would be")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dict(placing.files(folder))
        text = page(folder)
    if given.check:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE} is not what the cells say: python benchmarks/accuracy.py")
    PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
