"""Do blobs hash to their names? Every blob once, several at a time, each finding with its proof."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.progress import Progress, Step
from llmctl.system.files import translated
from llmctl.system.hashing import sha256_of
from llmctl.system.verified import Stamp

if TYPE_CHECKING:
    from llmctl.system.store import Store
    from llmctl.system.verified import Verified

Problem = Literal["missing", "dangling_link", "not_a_file", "unreadable", "size", "content", "changing"]
ATTEMPTS = 3


@dataclass(frozen=True)
class Wanted:
    """A blob that must be there. `size_bytes` is None where only the digest is known; `models` need it."""

    digest: str
    size_bytes: int | None
    media_types: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class BadBlob:
    """A blob that is not what its name says, with what was expected and what was found in its place.

    missing: nothing there. dangling_link: a symlink that points nowhere. not_a_file: a folder or device.
    unreadable: `reason` says why. size, content: other bytes, of another length or the same.
    changing: something writes to it while it is read.
    """

    digest: str
    expected_bytes: int | None
    found_digest: str | None
    found_bytes: int | None
    problem: Problem
    reason: str
    path: str
    models: tuple[str, ...]
    media_types: tuple[str, ...]
    remedy: str = ""


@dataclass(frozen=True)
class Checked:
    """What came of a run over many blobs. `skipped_since_seconds` is the oldest note that was trusted."""

    bad: tuple[BadBlob, ...]
    hashed: int
    hashed_bytes: int
    skipped: int
    skipped_bytes: int
    skipped_since_seconds: float | None


class Interrupted(Exception):
    """The run ends; what was in hand is not finished."""


OnBytes = Callable[[int], None]


def check_one(store: Store, wanted: Wanted, on_bytes: OnBytes | None = None) -> tuple[BadBlob | None, Stamp | None]:
    """The finding, or the state of the file that hashed. Nothing is changed."""
    path = store.blob(wanted.digest)
    for _ in range(ATTEMPTS):
        try:
            before = path.stat()
            if not stat.S_ISREG(before.st_mode):
                what = "a folder" if stat.S_ISDIR(before.st_mode) else "no regular file"
                return _bad(wanted, path, "not_a_file", what), None
            found = sha256_of(path, on_bytes)
            after = path.stat()
        except OSError as error:
            return _absent(wanted, path, error), None
        if Stamp.of(before) != Stamp.of(after):
            continue
        if found.digest == wanted.digest:
            return None, Stamp.of(after)
        differs = wanted.size_bytes not in {None, found.size_bytes}
        return _bad(wanted, path, "size" if differs else "content", "", found.digest, found.size_bytes), None
    return _bad(wanted, path, "changing", "it changes while it is read"), None


def _absent(wanted: Wanted, path: Path, error: OSError) -> BadBlob:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        if path.is_symlink():
            return _bad(wanted, path, "dangling_link", f"a link to {path.readlink()}, which is not there")
        return _bad(wanted, path, "missing", "")
    remedy = f"sudo chmod a+r {path}" if error.errno in {errno.EACCES, errno.EPERM} else ""
    return _bad(wanted, path, "unreadable", (error.strerror or str(error)).lower(), remedy=remedy)


def _bad(
    wanted: Wanted,
    path: Path,
    problem: Problem,
    reason: str,
    found_digest: str | None = None,
    found_bytes: int | None = None,
    remedy: str = "",
) -> BadBlob:
    return BadBlob(
        digest=wanted.digest,
        expected_bytes=wanted.size_bytes,
        found_digest=found_digest,
        found_bytes=found_bytes,
        problem=problem,
        reason=reason,
        path=str(path),
        models=wanted.models,
        media_types=wanted.media_types,
        remedy=remedy,
    )


@dataclass
class _Run:
    """One run over many blobs; its threads share it."""

    store: Store
    notes: Verified
    progress: Progress
    total_bytes: int
    hashed: int = 0
    hashed_bytes: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.bad: list[BadBlob] = []

    def count(self, size_bytes: int) -> None:
        if self.ended:
            raise Interrupted
        with self.lock:
            self.hashed_bytes += size_bytes
            self.progress(Step("verify", "verify", "running", "hashing", self.hashed_bytes, self.total_bytes))

    def one(self, wanted: Wanted) -> None:
        if self.ended:
            return
        # A failure of the hashing itself (out of memory, a bug) ends the run: it is no finding about a blob.
        bad, stamp = check_one(self.store, wanted, self.count)
        with self.lock:
            if bad is not None:
                self.bad.append(bad)
            if bad is None or bad.found_bytes is not None:
                self.hashed += 1
        if stamp is not None:
            self.notes.add(wanted.digest, stamp)
        else:
            self.notes.drop(wanted.digest)


def check(
    store: Store, blobs: Iterable[Wanted], notes: Verified, since_seconds: float | None, progress: Progress
) -> Checked:
    """Hash all blobs, less those that were verified within `since_seconds` and whose files are unchanged since.

    Each is noted as it ends, so that an interrupted run can be gone on with.
    """
    todo: list[tuple[int, Wanted]] = []
    skipped: list[tuple[int, float]] = []
    for wanted in blobs:
        stamp = _stamp(store.blob(wanted.digest))
        at = None if since_seconds is None or stamp is None else notes.since(wanted.digest, stamp, since_seconds)
        if stamp is not None and at is not None:
            skipped.append((stamp.size_bytes, at))
        else:
            todo.append((stamp.size_bytes if stamp else 0, wanted))
    run = _Run(store, notes, progress, sum(size for size, _ in todo))
    started = time.monotonic()
    run.count(0)
    # The largest first: the cores then end at about the same time.
    _in_threads(run, [wanted for _, wanted in sorted(todo, key=lambda each: (-each[0], each[1].digest))])
    notes.save()
    seconds = time.monotonic() - started
    said = f"{run.hashed} {'blob' if run.hashed == 1 else 'blobs'} hashed" + (
        f", {len(run.bad)} bad" if run.bad else ""
    )
    rate = f", {run.hashed_bytes / seconds / 1e6:,.0f} MB/s" if seconds > 1 else ""
    progress(Step("verify", "verify", "failed" if run.bad else "done", said + rate))
    return Checked(
        bad=tuple(sorted(run.bad, key=lambda bad: bad.digest)),
        hashed=run.hashed,
        hashed_bytes=run.hashed_bytes,
        skipped=len(skipped),
        skipped_bytes=sum(size for size, _ in skipped),
        skipped_since_seconds=min((at for _, at in skipped), default=None),
    )


def _in_threads(run: _Run, blobs: list[Wanted]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    workers = max(1, min(len(blobs), len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(run.one, blobs):
                pass
        finally:
            # After Ctrl-C or a failure the others stop at their next piece.
            run.ended = True


def stamp_of(path: Path) -> Stamp:
    with translated("read", path):
        return Stamp.of(path.stat())


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None
