"""What `pull` and `rm` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.changes import side_by_side
from llmctl.output.text import pairs, size

if TYPE_CHECKING:
    from llmctl.workflows.models import PullResult, RemoveResult


def pull_lines(result: PullResult, width: int) -> list[str]:
    rows = [
        ("model", result.name),
        ("pinned to", result.manifest_digest),
        ("weights", f"{result.weights_digest}, {result.quantization}, {size(result.size_bytes or None)}"),
        ("served as", result.alias),
        ("lock", result.lock),
    ]
    lines = pairs(rows, width)
    if result.previous_digest is not None:
        lines += ["", "what changed:", *side_by_side(result.previous_digest, result.manifest_digest, result.changes)]
    if result.note:
        lines.append(f"note: {result.note}")
    return lines


def rm_lines(result: RemoveResult, _: int) -> list[str]:
    lines = [f"removed {name}" for name in result.deleted]
    return lines + ([f"{result.name} is no longer pinned"] if result.unpinned else [])
