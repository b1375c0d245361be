"""Which blobs were hashed and found good, and when: a note in the state folder, so that a run can go on.

{"schema": 1, "stores": {"<path>": {"sha256:<hex>": [size, mtime_ns, ctime_ns, inode, unix seconds]}}}
It proves nothing by itself: whoever asks says how old a note may be, and a file that changed in any way has none.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import LlmctlError

NAME = "verified.json"
SCHEMA = 1
LIMIT_BYTES = 4 << 20
# Some 200 bytes each, so that the file stays well below its limit.
KEPT = 8192
# A killed run hashes again what was not noted. Small blobs wait for company: each note costs a sync of the disk.
DUE_BYTES = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """What a file system tells of a file. Writing to it changes one of these; ctime cannot be set back."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@dataclass(frozen=True)
class Note:
    """A blob that hashed to its name at `at_seconds` (Unix time), when its file was so."""

    stamp: Stamp
    at_seconds: float


Notes = dict[str, dict[str, Note]]


class Verified:
    """The notes of one store. Threads may share it."""

    def __init__(self, state: Path, store: Path) -> None:
        self.path = state / NAME
        self.store = str(store.resolve())
        self._known = read(self.path).get(self.store, {})
        self._new: dict[str, Note] = {}
        self._due_bytes = 0
        self._lock = threading.Lock()

    def since(self, digest: str, stamp: Stamp, age_seconds: float) -> float | None:
        """When the blob was verified, if within `age_seconds` and its file is the same; else None."""
        note = self._known.get(digest)
        if note is None or note.stamp != stamp:
            return None
        # A note from the future is of a clock that was wrong.
        return note.at_seconds if 0 <= time.time() - note.at_seconds <= age_seconds else None

    def add(self, digest: str, stamp: Stamp) -> None:
        """Note a blob that hashed. On disk at once, or with the next large one or `save`."""
        with self._lock:
            self._new[digest] = Note(stamp, time.time())
            self._due_bytes += stamp.size_bytes
            if self._due_bytes >= DUE_BYTES:
                self._write()

    def drop(self, digest: str) -> None:
        """Forget a blob that did not hash."""
        with self._lock:
            if digest in self._known:
                del self._known[digest]
                self._write(dropped=digest)

    def save(self) -> None:
        with self._lock:
            if self._new:
                self._write()

    def _write(self, dropped: str | None = None) -> None:
        from llmctl.system import files

        # A state folder that takes nothing costs the notes, not the answer. The lock: another llmctl may note too.
        with suppress(LlmctlError), files.exclusive(self.path.with_name(f".{NAME}.guard"), lambda: None):
            notes = read(self.path)
            mine = notes.setdefault(self.store, {})
            mine.update(self._new)
            if dropped is not None:
                mine.pop(dropped, None)
            files.atomic_write(self.path, dump(notes), mode=0o600)
        self._new.clear()
        self._due_bytes = 0


def read(path: Path) -> Notes:
    """The notes; none where the file is missing or is not one of these."""
    try:
        with path.open("rb") as file:
            stores: Any = json.loads(file.read(LIMIT_BYTES))["stores"]
        return {
            str(store): {
                str(digest): Note(Stamp(int(size), int(mtime), int(ctime), int(inode)), float(at))
                for digest, (size, mtime, ctime, inode, at) in notes.items()
            }
            for store, notes in stores.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def dump(notes: Notes) -> bytes:
    """The newest notes as JSON."""
    newest = sorted(
        ((note, store, digest) for store, found in notes.items() for digest, note in found.items()),
        key=lambda each: each[0].at_seconds,
    )[-KEPT:]
    stores: dict[str, dict[str, list[float]]] = {}
    for note, store, digest in newest:
        stamp = note.stamp
        fields = [stamp.size_bytes, stamp.mtime_ns, stamp.ctime_ns, stamp.inode, round(note.at_seconds, 3)]
        stores.setdefault(store, {})[digest] = fields
    return json.dumps({"schema": SCHEMA, "stores": stores}, indent=0).encode()
