"""What `prune` looks like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmctl.output.text import pairs, size

if TYPE_CHECKING:
    from llmctl.library.prune import PrunedFile
    from llmctl.workflows.prune import PruneResult

KINDS = {
    "blob": ("blob that no model names", "blobs that no model names"),
    "unfinished": ("file of an unfinished download", "files of unfinished downloads"),
    "scratch": ("file that llmctl left unfinished", "files that llmctl left unfinished"),
}


def plan_lines(result: PruneResult, width: int) -> list[str]:
    """What would go, for a person to agree to or not."""
    return _lines(result, "would remove", "would free", width)


def prune_lines(result: PruneResult, width: int) -> list[str]:
    return plan_lines(result, width) if result.dry_run else _lines(result, "removed", "freed", width)


def _lines(result: PruneResult, verb: str, freed: str, width: int) -> list[str]:
    rows = [("store", f"{result.store} ({result.why})")]
    rows += [(verb, f"alias {alias}") for alias in result.aliases]
    rows += [(verb, words) for words in kinds(result.files)]
    if result.aliases or result.files:
        rows.append((freed, size(result.freed_bytes)))
    else:
        rows.append((verb, "nothing"))
    rows += [("note", note) for note in result.notes]
    rows += [("with root's rights", result.remedy or "")]
    return pairs(rows, width)


def kinds(files: Iterable[PrunedFile]) -> list[str]:
    found: dict[str, list[PrunedFile]] = {}
    for file in files:
        found.setdefault(file.kind, []).append(file)
    return [
        f"{len(group)} {KINDS[kind][len(group) != 1]}, {size(sum(file.disk_bytes for file in group))}"
        for kind, group in found.items()
    ]
