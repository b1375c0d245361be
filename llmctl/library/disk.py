"""Room for weights: asked before anything is written, and recognised when it ran out on the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.errors import DiskFull, EngineError, LlmctlError
from llmctl.system.store import Store

if TYPE_CHECKING:
    from llmctl.core.pin import Layer

# Manifests, notes about parts, and what the file system keeps for itself.
MARGIN_BYTES = 64 << 20
FULL = ("no space left on device", "disk quota exceeded")


def require_room(store: Path | None, needed_bytes: int, what: str) -> None:
    """DiskFull, with both numbers. Skipped where the store is not on this machine."""
    from llmctl.system.disk import require_free

    folder = store
    while folder is not None and not folder.is_dir():
        folder = folder.parent if folder != folder.parent else None
    if folder is not None and needed_bytes > 0:
        require_free(folder, needed_bytes + MARGIN_BYTES, what)


def partial_bytes(store: Path | None, layers: Iterable[Layer]) -> int:
    """What an interrupted pull left of these blobs. The files are sparse: their blocks count, not their length."""
    if store is None:
        return 0
    blobs = (Store(store).blob(layer.digest) for layer in layers)
    return sum(_blocks_bytes(blob.with_name(f"{blob.name}-partial")) for blob in blobs)


def _blocks_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def translated(error: EngineError, what: str, store: Path | None) -> LlmctlError:
    """DiskFull where that is what the engine's text says, else the error itself."""
    if any(text in error.message for text in FULL):
        return DiskFull(f"the disk is full: {what} did not fit", f"df -h {store}" if store else None)
    return error
