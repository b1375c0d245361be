"""Models of one store into another of the same machine: copied, never linked, hashed where they arrive.

A hard link, or a file that was only renamed, could still be written by whoever has it open; a copy cannot. Where the
file system can share blocks (btrfs, xfs, bcachefs), the copy takes no time and no room.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.manifest import Manifest, parse_manifest
from llmctl.core.model import ModelRef
from llmctl.core.pin import Layer
from llmctl.core.progress import Progress, Step
from llmctl.errors import LlmctlError, Refused
from llmctl.system.copying import copied, writer
from llmctl.system.disk import require_free
from llmctl.system.files import as_owner, translated
from llmctl.system.hashing import sha256_of
from llmctl.system.store import Store

# ioctl of linux/fs.h: _IOW(0x94, 9, int)
FICLONE = 0x40049409


@dataclass(frozen=True)
class Found:
    """A name of a store, with the bytes of its manifest."""

    ref: ModelRef
    content: bytes
    manifest: Manifest


@dataclass(frozen=True)
class Brought:
    """Names that are in the target now, the bytes that were copied for them, and the bytes removed at the source."""

    names: tuple[str, ...]
    copied_bytes: int
    removed_bytes: int


def having(store: Store, weights: frozenset[str]) -> tuple[Found, ...]:
    """Every name of the store that stands for one of these weights (`sha256:<64 hex>`)."""
    return tuple(
        found
        for found in every(store)
        if found.manifest.weights is not None and found.manifest.weights.digest in weights
    )


def every(store: Store) -> Iterator[Found]:
    for ref in sorted(store.names(), key=str):
        with suppress(LlmctlError, ValueError):
            content = store.manifest(ref)
            if content is not None:
                yield Found(ref, content, parse_manifest(content))


def missing_bytes(found: tuple[Found, ...], target: Store) -> int:
    return sum(blob.size_bytes for blob in blobs_of(found) if not target.blob(blob.digest).exists())


def blobs_of(found: tuple[Found, ...]) -> tuple[Layer, ...]:
    return tuple({blob.digest: blob for one in found for blob in one.manifest.blobs}.values())


def bring(source: Store, target: Store, found: tuple[Found, ...], *, move: bool, progress: Progress) -> Brought:
    """Copy what `found` names. With `move` the source loses those names, and the blobs that nothing else there needs.

    Raises Refused for a blob that is not what its name says; nothing of its model is written then.
    """
    step = Step("import", "import", total=missing_bytes(found, target), completed=0)
    progress(step)

    def on_bytes(count: int) -> None:
        nonlocal step
        step = Step("import", "import", total=step.total, completed=(step.completed or 0) + count)
        progress(step)

    with target.changing(lambda: progress(Step("wait", "wait", detail="another llmctl changes the store"))):
        scratch = target.make_scratch()
        require_free(target.path, step.total or 0, "importing the models")
        copied_bytes = 0
        for blob in blobs_of(found):
            if not target.blob(blob.digest).exists():
                copied_bytes += bring_blob(source, target, blob, scratch, on_bytes)
        for one in found:
            target.write_manifest(one.ref, one.content)
    removed = leave(source, found) if move else 0
    names = tuple(str(one.ref) for one in found)
    progress(Step("import", "import", "done", f"{', '.join(names)} from {source.path}"))
    return Brought(names, copied_bytes, removed)


def bring_blob(source: Store, target: Store, blob: Layer, scratch: Path, on_bytes: Callable[[int], None]) -> int:
    origin, temporary = source.blob(blob.digest), scratch / f"import-{blob.digest[7:19]}"
    with translated("read", origin):
        reading = os.open(origin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with translated("write", temporary):
            writing = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if clone(reading, writing):
                    hashed = sha256_of(temporary, on_bytes)
                else:
                    hashed = copied(lambda buffer: os.readv(reading, [buffer]), writer(writing), on_bytes)
            finally:
                os.close(writing)
            if hashed.digest != blob.digest:
                raise Refused(
                    f"{origin} is not what its name says: its sha256 is {hashed.digest.removeprefix('sha256:')[:12]}",
                    f"llmctl verify --store {source.path}",
                    code="wrong_blob",
                )
            target.place(temporary, blob.digest)
    finally:
        os.close(reading)
        with suppress(OSError):
            temporary.unlink()
    return hashed.size_bytes


def clone(reading: int, writing: int) -> bool:
    """Share the blocks; False where this file system, or another one, cannot."""
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError:
        return False
    return True


def leave(source: Store, found: tuple[Found, ...]) -> int:
    """Forget the names at the source, and delete the blobs that no name there needs any more; their bytes."""
    removed = 0
    with source.changing(lambda: None), as_owner(source.path / "blobs"):
        for one in found:
            source.remove_manifest(one.ref)
        others = tuple(every(source))
        if len(others) != sum(1 for _ in source.names()):
            # Nobody knows what a manifest that cannot be read needs.
            return 0
        needed = {blob.digest for other in others for blob in other.manifest.blobs}
        for blob in blobs_of(found):
            path = source.blob(blob.digest)
            if blob.digest not in needed and path.exists():
                with translated("delete", path):
                    path.unlink()
                removed += blob.size_bytes
    return removed
