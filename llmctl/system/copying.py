"""Copy bytes and hash them in the same pass, in constant memory; write a large file as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from llmctl.errors import LlmctlError
from llmctl.system.files import sync_folder, translated
from llmctl.system.hashing import PIECE_BYTES, Hashed

# Pieces that wait for the hash while the next is read and written.
AHEAD = 4

# Fills the buffer as far as it gets; 0 at the end.
ReadInto = Callable[[memoryview], int]
Write = Callable[[memoryview], None]


def copied(read_into: ReadInto, write: Write, on_bytes: Callable[[int], None] | None = None) -> Hashed:
    """Give `write` everything that `read_into` has; the digest and size of it. Their errors pass through.

    Another thread hashes: hashlib lets go of the interpreter's lock, so copying costs hardly any time beside it.
    """
    digest = hashlib.sha256()
    total_bytes = 0
    buffers = deque(memoryview(bytearray(PIECE_BYTES)) for _ in range(AHEAD + 1))
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "hash") as hasher:
        while count := read_into(buffers[0]):
            piece = buffers[0][:count]
            buffers.rotate(-1)
            waiting.append(hasher.submit(digest.update, piece))
            write(piece)
            total_bytes += count
            if on_bytes is not None:
                on_bytes(count)
            if len(waiting) == AHEAD:
                waiting.popleft().result()
        for each in waiting:
            each.result()
    return Hashed(f"sha256:{digest.hexdigest()}", total_bytes)


def writer(descriptor: int) -> Write:
    """Writes all of each piece to a file or pipe. OSError is the caller's."""

    def write(piece: memoryview) -> None:
        while piece:
            piece = piece[os.write(descriptor, piece) :]

    return write


@contextmanager
def whole_file(path: Path) -> Iterator[int]:
    """A descriptor to write `path` with: it appears, on the disk itself, when the block ends well; else nothing stays.

    What a killed run left is written over by the next. LlmctlError where another process writes the same file now.
    """
    temporary = path.with_name(f".{path.name[:200]}.partial")
    with translated("write", path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        _take(descriptor, temporary, path)
        try:
            yield descriptor
            with translated("write", path):
                os.fsync(descriptor)
                temporary.replace(path)
                sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    finally:
        os.close(descriptor)


def _take(descriptor: int, temporary: Path, path: Path) -> None:
    """Hold the unfinished file and empty it."""
    busy = LlmctlError(f"another process is writing {path}", code="file_busy")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    with translated("write", path):
        # Another run may have finished it, under its other name, since it was opened.
        if not temporary.exists() or temporary.stat().st_ino != os.fstat(descriptor).st_ino:
            raise busy
        os.ftruncate(descriptor, 0)
