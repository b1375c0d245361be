"""Placement cells: every trial of llama.cpp's fit, as predicted and as the server prints it.

`python -m tests.memory.placing SERVER` writes down the predictions first, then measures, then records both in
tests/memory/cells/placing.json; `--predict` does the first step alone.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llmctl.core.memory import offload
from llmctl.core.memory.needs import Model
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import from_gguf
from llmctl.system.gguf_file import header
from tests.memory import oracle, published

MIB = 1 << 20
CELLS = Path(__file__).parent / "cells"
RECORD = CELLS / "placing.json"
_GPU = re.compile(r"\|\s+- RPC\d+ .*?= *-?\d+ \+ \( *(\d+) = *(\d+) \+ *(\d+) \+ *(\d+)\)")
_HOST = re.compile(r"\|\s+- Host +\| +\d+ = *(\d+) \+ *(\d+) \+ *(\d+)")
_LAYERS = re.compile(r"common_params_fit_impl:\s+- RPC(\d+) .*: +(\d+) layers(?: \( *(\d+) overflowing\))?,")
_KV = re.compile(r"llama_kv_cache: size = +([\d.]+) MiB")
_DONE = re.compile(rb"fitting params to free memory took|failed to (?:load|create|fit)")
_REFUSED = re.compile(r"(quantized V cache was requested[^\n]*|failed to (?:load|create|fit)[^\n]*)")


@dataclass(frozen=True)
class Cell:
    """One start of llama-server. `targets_mib` is what each stand-in may use; empty for the CPU alone."""

    model: str
    context: int
    parallel: int = 1
    ubatch: int = 512
    cache: str = "f16"
    flash_attention: str = "auto"
    targets_mib: tuple[int, ...] = ()

    @property
    def arguments(self) -> list[str]:
        flags = {"-c": self.context * self.parallel, "-np": self.parallel, "-b": self.ubatch, "-ub": self.ubatch}
        flags |= {"-ctk": self.cache, "-ctv": self.cache, "-fa": self.flash_attention}
        more = ["--embedding"] if self.model in published.EMBEDDING else []
        return [str(word) for pair in flags.items() for word in pair] + more


@dataclass
class Outcome:
    """`trials` has for each measurement of the fit a row of whole MiB (model, cache, compute) per device, host last.

    `kv_mib` are the caches of the first trial to two places; `layers` what each GPU gets in the end.
    """

    trials: list[list[list[int]]] = field(default_factory=list)
    kv_mib: list[float] = field(default_factory=list)
    layers: list[list[int | None]] = field(default_factory=list)


def equal(predicted: Outcome, measured: Outcome) -> bool:
    """Whether both say the same, in all that llama.cpp prints: without surplus it does not tell what overflows."""
    told = [
        [share[0], None if number >= len(measured.layers) or measured.layers[number][1] is None else share[1]]
        for number, share in enumerate(predicted.layers)
    ]
    return (predicted.trials, predicted.kv_mib, told) == (measured.trials, measured.kv_mib, measured.layers)


def memory_bytes() -> int:
    """What a stand-in reports as free: all of the host's memory (ggml-cpu.cpp)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def predict(cell: Cell, file: Path, free_bytes: int) -> Outcome:
    shape = from_gguf(header(file))
    model = Model(shape, file.stat().st_size)
    gpus = len(cell.targets_mib)
    settings = Settings(
        cell.context,
        cell.parallel,
        cell.ubatch,
        cell.cache,
        cell.cache,
        cell.flash_attention,
        "rpc" if gpus else "cpu",
        embedding=cell.model in published.EMBEDDING,
    )
    outcome = Outcome()

    def measure(placement: Placement) -> list[int]:
        needs = model.needs(settings, placement)
        assert needs.weights is not None
        assert needs.kv is not None
        assert needs.state is not None
        if not outcome.trials:
            outcome.kv_mib = [round(sum(needs.kv.values()) / MIB, 2)]
        compute = needs.compute or {}
        rows = []
        for device in (*range(1, gpus + 1), 0):
            cache = needs.kv.get(device, 0) + needs.state.get(device, 0)
            rows.append([needs.weights.get(device, 0) // MIB, cache // MIB, compute.get(device, 0) // MIB])
        outcome.trials.append(rows)
        return [needs.total(device) or 0 for device in range(1, gpus + 1)]

    if not gpus:
        measure(Placement((0,) * shape.layers, 0))
        return outcome
    # llama-server takes the margin in whole MiB.
    margins = [(free_bytes // MIB - target) * MIB for target in cell.targets_mib]
    counted = offload.Model(shape.layers, shape.graph_layers, shape.experts)
    found = offload.fit(counted, [free_bytes] * gpus, margins, measure)
    if not (found.full and len(outcome.trials) == 1):
        outcome.layers = [[share.layers, share.partial] for share in found.shares]
    return outcome


def measure(cell: Cell, file: Path, server: Path, free_bytes: int) -> Outcome | str:
    with ExitStack() as stack:
        gpus = len(cell.targets_mib)
        addresses = [stack.enter_context(oracle._stand_in(server.with_name("ggml-rpc-server"))) for _ in range(gpus)]
        variables = dict(os.environ)
        if addresses:
            variables["LLAMA_ARG_RPC"] = ",".join(addresses)
            margins = [str(free_bytes // MIB - target) for target in cell.targets_mib]
            variables["LLAMA_ARG_FIT_TARGET"] = ",".join(margins)
        command = [str(server), "-m", str(file), *cell.arguments, "--port", str(oracle._port()), *oracle._FLAGS]
        process = stack.enter_context(oracle._running(command, variables))
        output, end = b"", time.monotonic() + 120
        assert process.stdout
        while time.monotonic() < end and not _DONE.search(output):
            if select.select([process.stdout], [], [], 1)[0]:
                data = os.read(process.stdout.fileno(), 1 << 16)
                output += data
                if not data:
                    break
        return parse(output.decode(errors="replace"))


def parse(text: str) -> Outcome | str:
    if refused := _REFUSED.search(text):
        return refused[1]
    first = text.partition("memory breakdown")[0]
    outcome = Outcome(kv_mib=[round(sum(float(size) for size in _KV.findall(first)), 2)])
    rows: list[list[int]] = []
    for line in text.splitlines():
        if found := _GPU.search(line):
            rows.append([int(found[2]), int(found[3]), int(found[4])])
        elif found := _HOST.search(line):
            outcome.trials.append([*rows, [int(found[1]), int(found[2]), int(found[3])]])
            rows = []
    # A model with experts is placed twice, first without them; the last word counts.
    final = {int(found[1]): [int(found[2]), int(found[3]) if found[3] else None] for found in _LAYERS.finditer(text)}
    outcome.layers = [final[number] for number in sorted(final)]
    return outcome


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, model in published.MODELS.items():
        path = folder / f"{name}.gguf"
        yield name, path if path.exists() else published.write(model, path)


def main(server: Path, cells: list[Cell]) -> None:
    free = memory_bytes()
    CELLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = dict(files(Path(folder)))
        records = []
        for cell in cells:
            predicted = asdict(predict(cell, paths[cell.model], free))
            records.append({"cell": asdict(cell), "free_bytes": free, "predicted": predicted})
        # Written down before anything is measured.
        RECORD.write_text(json.dumps(records))
        for cell, record in zip(cells, records, strict=True):
            measured = measure(cell, paths[cell.model], server, free)
            record["measured"] = measured if isinstance(measured, str) else asdict(measured)
            record["command"] = " ".join(["llama-server", "-m", f"{cell.model}.gguf", *cell.arguments, *oracle._FLAGS])
            same = isinstance(measured, Outcome) and equal(Outcome(**record["predicted"]), measured)
            print(cell, "equal" if same else "DIFFERS", flush=True)
        RECORD.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")


if __name__ == "__main__":
    from tests.memory.placing_cells import CELLS_TO_MEASURE

    main(Path(sys.argv[1]), CELLS_TO_MEASURE)
