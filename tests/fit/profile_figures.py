"""The figures in the shipped profiles: what `fit` says of each on the smallest card that it is chosen for.

`python -m tests.fit.profile_figures` writes them anew.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from llmctl.core.gpu import GIB, PAIR, PAIR_FLOOR, SIZES
from llmctl.core.memory.decide import Card, Host
from llmctl.core.memory.fit import CUDA_RUNTIME_BYTES, Fit, Typed, judge
from llmctl.core.memory.needs import Model
from llmctl.core.memory.quantize import file_bytes, quantized
from llmctl.core.memory.shape import from_gguf
from llmctl.system.gguf_file import header
from llmctl.system.shipped import data_folder, load_shipped
from llmctl.workflows.fit import Machine, Wish, ask
from tests.memory import published

MIB = 1 << 20
OFFLOAD = "24gb-llama3.3-70b-offload"
FLOORS = {name: (floor,) for floor, name in SIZES} | {PAIR: (PAIR_FLOOR, PAIR_FLOOR), OFFLOAD: (23.0,)}
SHAPES = {
    "qwen3:8b-q4_K_M": "qwen3-8b",
    "qwen3:14b-q4_K_M": "qwen3-14b",
    "qwen3:32b-q4_K_M": "qwen3-32b",
    "llama3.3:70b-instruct-q4_K_M": "llama-3.3-70b",
}
FIGURES = re.compile(r"# Figures of `llmctl fit`.*?\n(?=#\n|\n)", re.DOTALL)


def verdict(name: str, folder: Path) -> Fit:
    profile = load_shipped(name)
    (spec,) = profile.models
    shape_name = SHAPES[spec.name]
    path = published.write(published.MODELS[shape_name], folder / f"{shape_name}.gguf")
    found = header(path)
    shape = quantized(from_gguf(found), spec.quantization)
    model = Model(shape, file_bytes(shape, found.data_offset) or 0)
    cards = tuple(Card(f"GPU {n}", None, int(gib * GIB), CUDA_RUNTIME_BYTES) for n, gib in enumerate(FLOORS[name]))
    asked = ask(Wish(), profile, Machine(cards, Host()), spec)
    return judge(model, asked, spec.name, None, Typed("llmctl fit", {}))


def words(name: str, result: Fit) -> str:
    """The lines of comment that the profile carries."""
    cards = [device for device in result.devices if device.kind == "gpu"]
    free = " and ".join(f"{gib:.1f} GiB" for gib in FLOORS[name])
    lines = [f"# Figures of `llmctl fit` with {free} free (computed, and recomputed by a test):"]
    for card in cards:
        parts = [("weights", card.weights_bytes), ("cache", card.kv_bytes), ("compute up to", card.compute_bytes)]
        told = ", ".join(f"{what} {(count or 0) / MIB:,.2f} MiB" for what, count in parts)
        lines.append(f"#   {card.name}: {told}, runtime up to {card.runtime_bytes // MIB} MiB")
    layers, most = result.layers, result.max_context
    context = f"the longest context that fits is {most:,} tokens" if most else "no context fits in full"
    lines.append(f"#   {layers.on_gpu} of {layers.total} layers on the GPU; {context}.")
    return "\n".join(lines) + "\n"


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in FLOORS:
            path = data_folder("profiles") / f"{name}.yaml"
            text = path.read_text()
            figures = words(name, verdict(name, Path(folder)))
            if FIGURES.search(text):
                path.write_text(FIGURES.sub(lambda _, new=figures: new, text))  # type: ignore[misc]
            else:
                path.write_text(text.replace("\n\nschema: 1\n", f"\n#\n{figures}\nschema: 1\n", 1))


if __name__ == "__main__":
    write()
