"""Files: read within bounds, written as a whole or not at all, locked. OSError ends here."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from llmctl.errors import DiskFull, LlmctlError, NotFound

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}


@contextmanager
def translated(action: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError inside into an LlmctlError that says `cannot ACTION PATH` and what to do."""
    try:
        yield
    except OSError as error:
        raise failure(error, action, path) from error


def failure(error: OSError, action: str, path: str | os.PathLike[str]) -> LlmctlError:
    """The LlmctlError for an OSError met while trying to `action` (read, write, create ...) `path`."""
    shown = os.fspath(path)
    if error.errno in _FULL:
        return DiskFull(f"cannot {action} {shown}: no space left on the disk", f"df -h {_folder(shown)}")
    if error.errno == errno.ENOENT:
        return NotFound(f"cannot {action} {shown}: no such file or folder")
    if error.errno == errno.EROFS:
        hint = "llmctl config shows each folder and the variable that moves it"
        return LlmctlError(f"cannot {action} {shown}: the file system is read-only", hint, code="read_only")
    if error.errno in _DENIED:
        hint = f"ls -ld {_folder(shown)} {shown}"
        return LlmctlError(f"cannot {action} {shown}: permission denied", hint, code="permission_denied")
    reason = (error.strerror or str(error)).lower()
    return LlmctlError(f"cannot {action} {shown}: {reason}", code="file_error")


def _folder(path: str) -> Path:
    """The nearest folder around `path` that is there."""
    around = Path(path).absolute().parents
    # os.path.isdir: Path.is_dir raises where a folder on the way may not be searched.
    return next((folder for folder in around if os.path.isdir(folder)), around[-1])  # noqa: PTH112


@contextmanager
def as_owner(path: str | os.PathLike[str]) -> Iterator[None]:
    """Where root writes: act as the first other user to whom a folder on the way belongs, so that what is made is
    theirs, and a link that they planted leads nowhere that they could not write. For all but root this is nothing."""
    owner = _first_owner(path) if os.geteuid() == 0 else None
    if owner is None:
        yield
        return
    with _files_as(owner.st_uid, owner.st_gid):
        yield


@contextmanager
def _files_as(user: int, group: int) -> Iterator[None]:
    """Be another user to the file system, in this thread alone: seteuid(2) would be of the whole process, and another
    thread's open would fail meanwhile. The kernel takes root's powers over files away with it (setfsuid(2))."""
    import ctypes

    system = ctypes.CDLL(None)
    system.setfsuid.restype = system.setfsgid.restype = ctypes.c_uint
    old_group, old_user = system.setfsgid(group), system.setfsuid(user)
    try:
        # They report no failure, but the one before; -1 is nobody and changes nothing.
        if (system.setfsuid(-1), system.setfsgid(-1)) != (user, group):
            raise PermissionError(errno.EPERM, "cannot act as the owner")
        yield
    finally:
        system.setfsuid(old_user)
        system.setfsgid(old_group)


def _first_owner(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The topmost folder, or link, around `path` that is not root's."""
    for folder in reversed(Path(path).absolute().parents):
        try:
            found = folder.lstat()
        except OSError:
            return None
        if found.st_uid != 0:
            return found
    return None


def read_bounded(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """The bytes of a regular file of at most `limit_bytes`. A folder, device or pipe is an error."""
    with translated("read", path):
        # O_NONBLOCK: opening a pipe that nobody writes would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
                raise LlmctlError(f"cannot read {os.fspath(path)}: it is {what}", code="file_error")
            content = _whole(descriptor, found.st_size, limit_bytes + 1)
        finally:
            os.close(descriptor)
    if len(content) > limit_bytes:
        message = f"cannot read {os.fspath(path)}: it is larger than {limit_bytes:,} bytes"
        raise LlmctlError(message, code="file_error")
    return content


def length(path: Path) -> int | None:
    """The bytes of a file, or None where there is none that this user may look for."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _whole(descriptor: int, size_bytes: int, most: int) -> bytes:
    """All bytes of a file, or the first `most`. Its size is a hint only: it may grow, and /proc tells 0."""
    pieces, have = [], 0
    while have < most and (piece := os.read(descriptor, min(most - have, max(size_bytes + 1 - have, 4096)))):
        pieces.append(piece)
        have += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def atomic_write(path: str | os.PathLike[str], content: str | bytes, mode: int = 0o644) -> None:
    """Replace `path` with `content`: after a crash the old file or the new one is there, never half of it.

    Makes missing folders. `mode` is narrowed by the umask. A symlink is followed, so that it stays one.
    """
    target = Path(os.path.realpath(path))
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name[:200]}.{os.urandom(4).hex()}.tmp")
    with translated("write", path), as_owner(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_through(temporary, data, mode)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)


def write_through(path: Path, data: bytes, mode: int) -> None:
    """Write a new file to the disk itself. OSError is the caller's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the file system can sync folders."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike[str], mode: int = 0o755) -> None:
    """Make a folder and those around it, where they are not there. `mode` is for the last, less the umask."""
    with translated("make", path), as_owner(path):
        Path(path).mkdir(mode, parents=True, exist_ok=True)


def lock_held(path: str | os.PathLike[str]) -> bool | None:
    """Whether another process holds the lock file `path`; None where this user may not open it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return None
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def exclusive(path: str | os.PathLike[str], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`. Where another process has it, call `waiting` once and wait without limit.

    The kernel drops the lock when its holder dies, however it dies. The file itself stays.
    """
    make_folder(Path(path).parent)
    with translated("lock", path), as_owner(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with _locked(descriptor, path, waiting):
        yield


@contextmanager
def exclusive_folder(folder: str | os.PathLike[str], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a folder that is there, as `exclusive` does. Nothing is written, and whoever may read the
    folder shares it. Inside, it may be held once more."""
    with translated("lock", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found, held = os.fstat(descriptor), _HELD.get()
    this = (found.st_dev, found.st_ino)
    if this in held:
        os.close(descriptor)
        yield
        return
    with _locked(descriptor, folder, waiting):
        _HELD.set(held | {this})
        try:
            yield
        finally:
            _HELD.set(_HELD.get() - {this})


# The folders that this thread has locked: the kernel would let a second descriptor of one wait for the first.
_HELD: ContextVar[frozenset[tuple[int, int]]] = ContextVar("_HELD", default=frozenset())


@contextmanager
def _locked(descriptor: int, path: str | os.PathLike[str], waiting: Callable[[], None]) -> Iterator[None]:
    """The lock of an open file, which is closed at the end."""
    try:
        with translated("lock", path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
