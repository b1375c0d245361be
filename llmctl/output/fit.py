"""What `fit` looks like: a bar for each GPU, then figures. ASCII only, so that every terminal shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmctl.output.text import UNKNOWN, pairs, size, table

if TYPE_CHECKING:
    from llmctl.core.memory.fit import DeviceFit, Fit, Quantized
    from llmctl.core.memory.solve import Cell
    from llmctl.core.memory.speed import Speed
    from llmctl.workflows.fit import Together

VERDICTS = {
    "full": "fits: everything on the GPU",
    "partial": "does not fit: part of it would lie in host memory",
    "no": "does not fit: no layer would lie on a GPU",
    "unknown": "unknown: loading it would show",
}
MARKS = (("weights", "#"), ("cache", "="), ("compute", "+"), ("runtime", ":"), ("others", "x"), ("free", "."))
WIDEST_BAR = 72


def fit_lines(result: Fit, width: int) -> list[str]:
    lines = [*wrapped(f"{result.model.name}: {verdict(result)}", width), ""]
    lines += pairs(setting_rows(result), width)
    for device in result.devices:
        lines += ["", *device_lines(device, width)]
    lines += ["", *pairs(closing_rows(result), width)]
    for note in result.notes:
        lines += wrapped(f"note: {note}", width)
    if result.ways_out:
        lines += ["", "ways out"]
        for way in result.ways_out:
            lines += [*wrapped(f"  {way.words}:", width), f"    {way.command}"]
    if result.table:
        lines += ["", *context_lines(result.table, width)]
    if result.slots:
        lines += ["", *slot_lines(result.slots, width)]
    if result.quantizations:
        lines += ["", *quantization_lines(result.quantizations, width)]
    return lines


def together_lines(result: Together, width: int) -> list[str]:
    blocks = [fit_lines(model, width) for model in result.models]
    return [line for number, block in enumerate(blocks) for line in (["", *block] if number else block)]


def verdict(result: Fit) -> str:
    if not any(device.kind == "gpu" for device in result.devices):
        return {"full": "fits in host memory", "no": "does not fit in host memory"}.get(result.verdict, UNKNOWN)
    return VERDICTS[result.verdict]


def setting_rows(result: Fit) -> list[tuple[str, str]]:
    model = result.model
    facts = [model.architecture, model.quantization or "", f"{model.parameters / 1e9:.1f}B", size(model.size_bytes)]
    slots = "" if result.parallel == 1 else f" x {result.parallel} slots"
    layers = result.layers
    placed = UNKNOWN if layers.on_gpu is None else f"{layers.on_gpu} of {layers.total} on the GPU"
    if layers.overflowing:
        placed += f", {layers.overflowing} of them with experts elsewhere"
    return [
        ("model", ", ".join(fact for fact in facts if fact)),
        ("context", f"{result.context:,}{slots} ({result.kv_cache} cache, batch {result.batch})"),
        ("layers", placed),
    ]


def device_lines(device: DeviceFit, width: int) -> list[str]:
    """The bar of a device and what its parts are."""
    known = [part for part in (device.weights_bytes, device.kv_bytes, device.state_bytes) if part is not None]
    if device.kind == "host" and not any(known):
        return [f"{device.name}: nothing"]
    parts = parts_of(device)
    head = device.name if device.free_bytes is None else f"{device.name}: {size(device.free_bytes)} free before"
    lines = wrapped(head, width)
    if device.kind == "gpu" and device.free_bytes is not None:
        lines.append(bar(parts, min(width - 2, WIDEST_BAR)))
    legend = dict(MARKS)
    shown = [(f"{legend[name]} {name}", words(name, part)) for name, part in parts if part is None or part > 0]
    return lines + pairs(shown, width)


def words(name: str, count: int | None) -> str:
    return UNKNOWN if count is None else exact(count) if name in {"weights", "cache", "compute"} else size(count)


def exact(count: int) -> str:
    """As llama.cpp prints it: MiB to two places."""
    return f"{count / (1 << 20):,.2f} MiB"


def parts_of(device: DeviceFit) -> list[tuple[str, int | None]]:
    cache = None if device.kv_bytes is None else device.kv_bytes + (device.state_bytes or 0)
    others = None
    if device.total_bytes is not None and device.free_bytes is not None and device.kind == "gpu":
        others = device.total_bytes - device.free_bytes
    free = None
    if device.free_bytes is not None and device.used_bytes is not None:
        free = device.free_bytes - device.used_bytes
    found: list[tuple[str, int | None]] = [
        ("weights", device.weights_bytes),
        ("cache", cache),
        ("compute", device.compute_bytes),
        ("runtime", device.runtime_bytes),
    ]
    return [*found, ("others", others or 0), ("free", free)]


def bar(parts: Sequence[tuple[str, int | None]], width: int) -> str:
    """Each part as wide as its share; one that is there has at least one mark."""
    sizes = {name: max(count or 0, 0) for name, count in parts}
    whole = sum(sizes.values()) or 1
    marks = {name: max(round(count * width / whole), 1 if count else 0) for name, count in sizes.items()}
    widest = max(marks, key=lambda name: marks[name])
    marks[widest] = max(marks[widest] + width - sum(marks.values()), 0)
    return "[" + "".join(mark * marks[name] for name, mark in MARKS) + "]"


def closing_rows(result: Fit) -> list[tuple[str, str]]:
    sure = result.exactness
    most = UNKNOWN if result.max_context is None else f"{result.max_context:,} tokens"
    return [
        ("margin", f"{size(result.margin_bytes)} stay free on each GPU"),
        ("most context", "none fits" if result.max_context == 0 else most),
        ("certainty", f"weights {sure.weights}, cache {sure.kv}, compute {sure.compute} ({result.engine})"),
        ("speed", speed_words(result.speed)),
    ]


def speed_words(speed: Speed | None) -> str:
    if speed is None or speed.tokens_per_second_low is None or speed.tokens_per_second_high is None:
        return ""
    text = f"{rate(speed.tokens_per_second_low)} to {rate(speed.tokens_per_second_high)} tokens/s"
    first_low, first_high = speed.first_token_seconds_low, speed.first_token_seconds_high
    if first_low is not None and first_high is not None:
        text += f", {first_low:.1f} to {first_high:.1f} s to the first after {speed.prompt_tokens:,} tokens"
    return f"{text} ({speed.basis})"


def context_lines(cells: Sequence[Cell], width: int) -> list[str]:
    kinds = list(dict.fromkeys(cell.kv_cache for cell in cells))
    by_key = {(cell.context, cell.kv_cache): cell for cell in cells}
    contexts = list(dict.fromkeys(cell.context for cell in cells))
    rows = [[f"{context:,}", *(mark(by_key[context, kind]) for kind in kinds)] for context in contexts]
    title = "GiB in all by context and cache type (* fits)"
    return [*wrapped(title, width), *table(["context", *kinds], rows, width)]


def slot_lines(cells: Sequence[Cell], width: int) -> list[str]:
    contexts = list(dict.fromkeys(cell.context for cell in cells))
    rows: dict[int, list[str]] = {context: [] for context in contexts}
    counts: list[int] = []
    for cell in cells:
        rows[cell.context].append(mark(cell))
        counts += [cell.parallel] if cell.parallel not in counts else []
    header = ["context", *(f"{count} users" if count > 1 else "1 user" for count in counts)]
    title = "GiB in all by context of each and users at once (* fits)"
    return [*wrapped(title, width), *table(header, [[f"{context:,}", *row] for context, row in rows.items()], width)]


def mark(cell: Cell) -> str:
    return "?" if cell.used_bytes is None else f"{cell.used_bytes / (1 << 30):.1f}{' *' if cell.fits else ''}"


def quantization_lines(found: Sequence[Quantized], width: int) -> list[str]:
    rows = [
        [
            one.quantization,
            f"{one.bits_per_weight:.2f}",
            size(one.size_bytes),
            size(one.used_bytes),
            UNKNOWN if one.fits is None else "yes" if one.fits else "no",
        ]
        for one in found
    ]
    return table(["quantization", "bits", "file", "on GPU", "fits"], rows, width)


def rate(tokens_per_second: float) -> str:
    """Two or three digits that mean something."""
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.3g}"


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_on_hyphens=False) or [""]
