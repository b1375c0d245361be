"""What `list` looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.model import name_of_alias
from llmctl.output.text import pairs, size, table

if TYPE_CHECKING:
    from llmctl.library.inventory import LibraryEntry
    from llmctl.library.usage import DiskUse
    from llmctl.workflows.inventory import Inventory

EMPTY = "No models here. Get one with: llmctl pull NAME"
HEADER = ("name", "size", "quantization", "digest", "pin", "source", "loaded")
LOADED = {True: "yes", False: "no", None: "unknown"}


def list_lines(found: Inventory, width: int) -> list[str]:
    lines = models_table([row(entry) for entry in found.models], width) if found.models else [EMPTY]
    summary = [
        ("store", f"{found.store} ({found.why})" if found.store else found.why),
        ("disk", disk_words(found.disk) if found.disk else ""),
        *(("also", other_words(other.path, other.models)) for other in found.others),
        *(("finding", finding) for finding in found.findings),
    ]
    return [*lines, "", *pairs(summary, width)]


def models_table(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """Aligned columns, without those that matter least where the terminal is too narrow for all."""
    for left_out in ((), ("source",), ("source", "digest")):
        kept = [number for number, name in enumerate(HEADER) if name not in left_out]
        header, body = [HEADER[number] for number in kept], [[row[number] for number in kept] for row in rows]
        lines = table(header, body, width)
        if len(lines) == len(rows) + 1:
            return lines
    return table(HEADER, rows, width)


def row(entry: LibraryEntry) -> tuple[str, ...]:
    return (
        entry.name if entry.alias else old_alias(entry.name),
        "damaged" if entry.damaged and not entry.size_bytes else size(entry.size_bytes or None),
        entry.quantization or "unknown",
        entry.digest[:12] or "unknown",
        pin_words(entry),
        entry.source or "unknown",
        LOADED[entry.loaded],
    )


def old_alias(name: str) -> str:
    """What no pin uses any more, in the words of the name that it was made for."""
    plain = name_of_alias(name)
    return f"{plain} (old alias)" if plain else name


def pin_words(entry: LibraryEntry) -> str:
    """The pin's state, and what --check found."""
    if entry.upstream is None or entry.upstream.state == "same":
        return entry.pin_state
    return f"{entry.pin_state}, {'newer' if entry.upstream.state == 'newer' else 'newer unknown'}"


def disk_words(disk: DiskUse) -> str:
    blobs = "1 blob" if disk.blobs == 1 else f"{disk.blobs} blobs"
    parts = [f"{size(disk.used_bytes)} in {blobs}"]
    if disk.unfinished_length_bytes:
        whole = size(disk.unfinished_length_bytes)
        parts.append(f"{size(disk.unfinished_bytes)} of unfinished downloads (of {whole} when finished)")
    if disk.unreferenced_bytes:
        parts.append(f"{size(disk.unreferenced_bytes)} of the blobs belong to no model (llmctl prune --dry-run)")
    return ", ".join([*parts, f"{size(disk.free_bytes)} free"])


def other_words(path: str, models: int | None) -> str:
    if models is None:
        return f"another store, {path}, which this user may not look into"
    return f"another store, {path}, has {models} model{'' if models == 1 else 's'}: llmctl list --store {path}"
