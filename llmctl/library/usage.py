"""What uses a store: the room on its disk, and the locks of this user that pin something in it.

Every lock that llmctl writes is noted in the state folder, one small file for each, with the aliases that it
pins: a profile may lie anywhere, and `prune` must know them all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.errors import LlmctlError
from llmctl.library import lock_file

if TYPE_CHECKING:
    from llmctl.core.pin import Lock, Pin
    from llmctl.system.paths import Paths
    from llmctl.system.store import Store, StoredFile

NOTES = "locks"
LARGEST_NOTE_BYTES = 4 << 20


@dataclass(frozen=True)
class KnownLock:
    """One lock file of this user with its pins.

    `unknown` says why they cannot be known now; `aliases` are then those that it had when llmctl last used it,
    None where that is not known either. `note` is the file that keeps it in mind.
    """

    path: str
    pins: tuple[Pin, ...] = ()
    unknown: str | None = None
    aliases: tuple[str, ...] | None = None
    note: str | None = None


@dataclass(frozen=True)
class DiskUse:
    """Bytes are what the disk gave (blocks), each blob once; `unfinished_length_bytes` is what unfinished
    downloads will take: their files are sparse. `unreferenced_bytes` are blobs that no manifest names, None
    where a manifest cannot be read."""

    blobs: int
    used_bytes: int
    unfinished_bytes: int
    unfinished_length_bytes: int
    unreferenced_bytes: int | None
    free_bytes: int | None


def note(state: Path, path: Path, lock: Lock) -> None:
    """Keep in mind that the lock at `path` pins what it pins. Nothing is written where that is known."""
    from llmctl.system.files import atomic_write

    content = json.dumps({"lock": str(path.absolute()), "aliases": [pin.alias for pin in lock.models]}) + "\n"
    kept = _note_of(state, path)
    try:
        if kept.read_text() == content:
            return
    except (OSError, ValueError):
        pass
    atomic_write(kept, content, mode=0o600)


def change(state: Path, path: Path, edit: Callable[[Lock], Lock]) -> Lock:
    """Read, edit and write the lock at `path`, with no other llmctl in between, and keep it in mind."""

    def noted(lock: Lock) -> Lock:
        changed = edit(lock)
        # First, so that what it pins is never unknown.
        note(state, path, changed)
        return changed

    return lock_file.change(path, noted)


def seen(paths: Paths, path: Path, lock: Lock) -> None:
    """Keep a lock in mind that was only read: a team's, which another machine wrote. One beside the user's own
    profiles is known anyway. Who only looks is not told where that cannot be written."""
    if lock.models and path.absolute().parent != paths.config.absolute():
        with suppress(LlmctlError):
            note(paths.state, path, lock)


def known_locks(state: Path, more: Iterable[Path] = ()) -> tuple[KnownLock, ...]:
    """Every noted lock, and `more` that are there whether noted or not."""
    from llmctl.system.files import translated

    found: dict[str, KnownLock] = {}
    folder = state / NOTES
    with translated("read", folder):
        notes = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for each in notes:
        known = _noted(each)
        found[known.path] = known
    for path in more:
        if str(path.absolute()) not in found and os.path.lexists(path):
            found[str(path.absolute())] = _read(path, None, None)
    return tuple(found.values())


def _note_of(state: Path, path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return state / NOTES / f"{name}.json"


def _noted(kept: Path) -> KnownLock:
    from llmctl.system.files import read_bounded

    try:
        content = json.loads(read_bounded(kept, LARGEST_NOTE_BYTES))
        path, aliases = Path(content["lock"]), tuple(map(str, content["aliases"]))
    except (LlmctlError, ValueError, TypeError, KeyError):
        return KnownLock(str(kept), unknown=f"{kept} should name a lock, and it is damaged", note=str(kept))
    return _read(path, aliases, str(kept))


def _read(path: Path, aliases: tuple[str, ...] | None, kept: str | None) -> KnownLock:
    try:
        lock = lock_file.read(path)
    except LlmctlError as error:
        return KnownLock(str(path), (), error.message, aliases, kept)
    if not lock.models and not os.path.lexists(path) and not _seen(path.parent):
        # A disk that is not mounted, a home that is not there: its lock may be as alive as ever.
        return KnownLock(str(path), (), f"the folder of {path} is not there", aliases, kept)
    return KnownLock(str(path), lock.models, None, aliases, kept)


def _seen(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)  # noqa: PTH112


def disk_use(store: Store, files: Iterable[StoredFile], named: set[str] | None) -> DiskUse:
    """`files` are the store's blobs folder; `named` the digests in its manifests, None where one is unreadable."""
    blobs = [file for file in files if not file.partial]
    unfinished = [*(file for file in files if file.partial), *store.scratch_files()]
    loose = None if named is None else sum(file.disk_bytes for file in blobs if file.digest not in named)
    return DiskUse(
        blobs=len(blobs),
        used_bytes=sum(file.disk_bytes for file in blobs),
        unfinished_bytes=sum(file.disk_bytes for file in unfinished),
        unfinished_length_bytes=sum(file.size_bytes for file in unfinished),
        unreferenced_bytes=loose,
        free_bytes=free_bytes(store.path),
    )


def free_bytes(path: Path) -> int | None:
    """Room for this user where `path` is or will be."""
    for folder in (path, *path.parents):
        try:
            found = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None
