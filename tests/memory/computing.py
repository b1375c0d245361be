"""Compute cells: each buffer as predicted, and as llama-server prints it.

`python -m tests.memory.computing --predict` writes the predictions to tests/memory/cells/compute.json;
`python -m tests.memory.computing SERVER` then measures what is not measured yet, SERVER being llama-server of the
engine version in the record, with ggml-rpc-server beside it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llmctl.core.memory.compute import Compute, compute_buffers
from llmctl.core.memory.gguf import parse
from llmctl.core.memory.settings import PARTS, Overflow, Placement, Settings
from llmctl.core.memory.shape import Shape, from_gguf
from tests.memory import oracle, published

RECORD = Path(__file__).parent / "cells" / "compute.json"
ENGINE = "llama.cpp b10760"
_PER_MODEL = 11

Row = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A start of llama-server: `gpus` stand-ins, `on_gpu` layers on them (the output layer is one).

    The experts of the first `experts_on_host` layers lie on the host, and of the next layer the tensors of `part`.
    """

    model: str
    settings: Settings
    gpus: int = 0
    on_gpu: int = 0
    experts_on_host: int = 0
    part: str = ""

    @property
    def arguments(self) -> list[str]:
        """The command line as Ollama would give it, and how the layers are to be placed."""
        settings = self.settings
        flags = {
            "-c": settings.context * settings.parallel,
            "-np": settings.parallel,
            "-b": settings.ubatch,
            "-ub": settings.ubatch,
            "-ctk": settings.cache_k,
            "-ctv": settings.cache_v,
            "-fa": settings.flash_attention,
        }
        if self.gpus:
            flags["-ngl"] = self.on_gpu
            flags["-ts"] = ",".join(["1"] * self.gpus)
        if self.experts_on_host:
            named = [(layer, PARTS["experts"].pattern) for layer in range(self.experts_on_host)]
            named += [(self.experts_on_host, PARTS[self.part].pattern)] if self.part else []
            flags["-ot"] = "|".join(rf"blk\.{layer}\.{pattern}" for layer, pattern in named) + "=CPU"
        words = [str(word) for pair in flags.items() for word in pair]
        words += ["--kv-unified"] if settings.unified else []
        return words + (["--embedding"] if settings.embedding else [])

    def placement(self, layers: int) -> Placement:
        """Equal shares of the last layers (src/llama-model.cpp:1354)."""
        on_gpu = min(self.on_gpu, layers + 1)
        first = layers + 1 - on_gpu
        devices = [0] * first + [1 + index * self.gpus // on_gpu for index in range(on_gpu)]
        moved = [Overflow(layer, "experts", 0) for layer in range(self.experts_on_host)]
        moved += [Overflow(self.experts_on_host, self.part, 0)] if self.part else []
        return Placement(tuple(devices[:layers]), devices[layers], tuple(moved), self.gpus)


def cells(name: str) -> list[Cell]:
    """A random choice, the same each time: the model on the CPU, on one GPU, on two, in part; every cache type, batch
    and number of slots; for experts also those that lie on the host."""
    chance, model = random.Random(name), published.MODELS[name]
    if name in published.EMBEDDING:
        return [_cell(chance, name, model, number) for number in range(4)]
    moved = 6 if "expert_count" in model.more else 0
    return [_cell(chance, name, model, number) for number in range(_PER_MODEL)] + [
        _overflowing(chance, name, model) for _ in range(moved)
    ]


def _overflowing(chance: random.Random, name: str, model: published.Model) -> Cell:
    cell = _cell(chance, name, model, 1)
    part = chance.choice(("", "feed_forward", "gate_and_down", "down"))
    return replace(cell, experts_on_host=chance.randint(1, model.layers - 2), part=part)


def _cell(chance: random.Random, name: str, model: published.Model, number: int) -> Cell:
    gpus = (0, 1, 1, 2)[number % 4]
    on_gpu = model.layers + 1 if number % 8 in (1, 3) else chance.randint(0, model.layers)
    on_gpu = on_gpu if gpus else 0
    backend = "rpc" if gpus else "cpu"
    ubatch = chance.choice((512, 512, 1024, 2048))
    if name in published.EMBEDDING:
        context = min(model.context, chance.choice((512, 2048, 8192)))
        flash = chance.choice(("auto", "off"))
        return Cell(
            name, Settings(context, 1, ubatch, flash_attention=flash, backend=backend, embedding=True), gpus, on_gpu
        )
    context = min(model.context, chance.choice((2048, 4096, 5000, 8192, 16384, 32768, 65536, 131072)))
    parallel = chance.choice((1, 1, 1, 2, 3, 4))
    flash = chance.choice(("auto", "auto", "on", "off"))
    kinds = ("f16", "f16", "q8_0", "q4_0", "bf16", "q4_1", "q5_0", "q5_1", "iq4_nl")
    k = chance.choice(kinds)
    v = chance.choice((k, chance.choice(kinds)))
    if flash == "off" and v not in ("f16", "bf16"):
        v = "f16"
    if flash == "off":
        # A stand-in cannot measure a tensor with more than 4 GiB between two slots: its messages hold 32 bits.
        context = min(context, 16384)
    unified = chance.random() < 0.15
    settings = Settings(context, parallel, ubatch, k, v, flash, backend, unified)
    return Cell(name, settings, gpus, on_gpu)


def shape_of(path: Path) -> Shape:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return from_gguf(parse(read, path.stat().st_size))


def predicted(cell: Cell, shape: Shape, *, whole: bool = True) -> Compute:
    return compute_buffers(shape, cell.settings, cell.placement(shape.layers), whole=whole)


def mebibytes(bytes_by_device: dict[int, int]) -> dict[str, float]:
    """As the server prints it: two places, nothing for a device without a buffer."""
    named = {"CPU" if device == 0 else f"RPC{device - 1}": size for device, size in bytes_by_device.items()}
    return {name: round(size / oracle.MIB, 2) for name, size in sorted(named.items()) if size > 1}


def predict(folder: Path) -> None:
    """Write down what is expected of models that are not in the record yet."""
    records = load() if RECORD.exists() else []
    known = {record["model"] for record in records}
    for cell in (cell for name in published.MODELS if name not in known for cell in cells(name)):
        path = folder / f"{cell.model}.gguf"
        if not path.exists():
            published.write(published.MODELS[cell.model], path)
        compute = predicted(cell, shape_of(path))
        prediction = _row(mebibytes(compute.bytes), compute.nodes, compute.splits) if not compute.refused else "refused"
        facts = {
            name: value for name, value in asdict(cell).items() if value not in (0, "") or name in ("gpus", "on_gpu")
        }
        facts["command"] = ["llama-server", *cell.arguments]
        records.append(facts | {"predicted": prediction, "measured": None})
    _save(records)


def cell_of(record: Record) -> Cell:
    facts = {name: record[name] for name in ("gpus", "on_gpu", "experts_on_host", "part") if name in record}
    return Cell(record["model"], Settings(**record["settings"]), **facts)


def measured(cell: Cell, path: Path, server: Path) -> Row | str:
    found = oracle.measure(server, path, cell.arguments, cell.gpus)
    if isinstance(found, str):
        return "refused"
    return _row(dict(sorted(found.compute.items())), found.nodes, found.splits)


def _row(compute_mib: dict[str, float], nodes: int, splits: int) -> Row:
    return {"compute_mib": compute_mib, "nodes": nodes, "splits": splits}


def measure(folder: Path, server: Path) -> None:
    records = load()
    for number, record in enumerate(records):
        if record["measured"] is None:
            cell = cell_of(record)
            path = folder / f"{cell.model}.gguf"
            if not path.exists():
                published.write(published.MODELS[cell.model], path)
            record["measured"] = measured(cell, path, server)
            if record["measured"] != record["predicted"]:
                print(record["command"], cell.model, record["predicted"], record["measured"], flush=True)
        if number % 40 == 39:
            _save(records)
    _save(records)


def load() -> list[Record]:
    cells: list[Record] = json.loads(RECORD.read_text())["cells"]
    return cells


def _save(records: list[Record]) -> None:
    """One line per cell, so that a change shows."""
    lines = ",\n".join(json.dumps(record) for record in records)
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(f'{{"engine": "{ENGINE}", "cells": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        if sys.argv[1] == "--predict":
            predict(Path(name))
        else:
            measure(Path(name), Path(sys.argv[1]))
