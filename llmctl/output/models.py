"""What `pull`, `list` and `rm` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import pairs, size, table

if TYPE_CHECKING:
    from llmctl.workflows.models import Inventory, PullResult, RemoveResult

EMPTY = "No models here. Get one with: llmctl pull NAME"


def pull_lines(result: PullResult, width: int) -> list[str]:
    rows = [
        ("model", result.name),
        ("pinned to", result.manifest_digest),
        ("weights", f"{result.weights_digest}, {result.quantization}, {size(result.size_bytes or None)}"),
        ("served as", result.alias),
        ("lock", result.lock),
    ]
    lines = pairs(rows, width)
    if result.note:
        lines.append(f"note: {result.note}")
    return lines


def list_lines(found: Inventory, width: int) -> list[str]:
    if not found.models:
        return [EMPTY]
    header = ("name", "size", "quantization", "digest", "pin", "source", "loaded")
    rows = [
        (
            entry.name,
            size(entry.size_bytes or None),
            entry.quantization or "unknown",
            entry.digest[:12],
            entry.pin_state,
            entry.source or "unknown",
            "yes" if entry.loaded else "no",
        )
        for entry in found.models
    ]
    return table(header, rows, width)


def rm_lines(result: RemoveResult, _: int) -> list[str]:
    lines = [f"removed {name}" for name in result.deleted]
    return lines + ([f"{result.name} is no longer pinned"] if result.unpinned else [])
