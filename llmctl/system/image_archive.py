"""Read an OCI image layout: a folder, a tar file, or a tar that comes through a pipe. OSError ends here."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmctl.core.image_layout import INDEX_NAME, LARGEST_DOCUMENT_BYTES, LAYOUT_NAME, BadArchive, blob_name
from llmctl.core.tar import Member, members
from llmctl.errors import LlmctlError, NotFound
from llmctl.system.copying import ReadInto
from llmctl.system.files import read_bounded, translated

# What a pipe may bring before the weights: it cannot be rewound, so it is held.
MOST_HELD_BYTES = 64 << 20


@dataclass(frozen=True)
class Found:
    """A blob that an archive has, by its name: `read_into` gives its bytes, which nobody has hashed."""

    digest: str
    size_bytes: int
    read_into: ReadInto


class Archive(Protocol):
    @property
    def read_whole(self) -> bool:
        """Whether all that it holds is known by now."""
        ...

    def document(self, name: str) -> bytes | None:
        """A small member; None where there is none. BadArchive for one that is too large."""
        ...

    def size(self, digest: str) -> int | None:
        """How long the archive says a blob is; None where it has none, or cannot know yet."""
        ...

    def blobs(self, wanted: Collection[str]) -> Iterator[Found]:
        """Those of the wanted blobs that are there. Read each before the next."""
        ...

    def names(self) -> tuple[str, ...]:
        """Every member that was seen."""
        ...


@contextmanager
def opened(path: Path | None) -> Iterator[Archive]:
    """The archive at `path`, None for stdin. BadArchive, NotFound or LlmctlError where it cannot be one."""
    with ExitStack() as stack:
        if path is None:
            yield TarStream(0)
        elif path.is_dir():
            yield Folder(path)
        else:
            with translated("read", path):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                kind = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
                raise LlmctlError(f"cannot read {path}: it is no file, folder or pipe", code="file_error")
            yield TarFile(path, descriptor) if stat.S_ISREG(kind) else TarStream(descriptor)


class Folder:
    """A layout as skopeo's `oci:` and oras's `--to-oci-layout` write it."""

    read_whole = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def document(self, name: str) -> bytes | None:
        try:
            return read_bounded(self.path / name, LARGEST_DOCUMENT_BYTES)
        except NotFound:
            return None

    def size(self, digest: str) -> int | None:
        try:
            return (self.path / blob_name(digest)).stat().st_size
        except OSError:
            return None

    def blobs(self, wanted: Collection[str]) -> Iterator[Found]:
        for digest in wanted:
            path = self.path / blob_name(digest)
            if not path.is_file():
                continue
            with translated("read", path):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                size_bytes = os.fstat(descriptor).st_size
                yield Found(digest, size_bytes, _window(descriptor, 0, size_bytes, path))
            finally:
                os.close(descriptor)

    def names(self) -> tuple[str, ...]:
        with translated("read", self.path):
            return tuple(str(path.relative_to(self.path)) for path in self.path.glob("**/*") if path.is_file())


class TarFile:
    """A tar on a disk: its headers are read first, then members in any order."""

    read_whole = True

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        with translated("read", path):
            self.members = {member.name: member for member in members(_Disk(descriptor))}

    def document(self, name: str) -> bytes | None:
        member = self.members.get(name)
        if member is None:
            return None
        _require_small(member)
        with translated("read", self.path):
            return os.pread(self.descriptor, member.size_bytes, member.position)

    def size(self, digest: str) -> int | None:
        member = self.members.get(blob_name(digest))
        return None if member is None else member.size_bytes

    def blobs(self, wanted: Collection[str]) -> Iterator[Found]:
        for digest in wanted:
            if (member := self.members.get(blob_name(digest))) is not None:
                read_into = _window(self.descriptor, member.position, member.size_bytes, self.path)
                yield Found(digest, member.size_bytes, read_into)

    def names(self) -> tuple[str, ...]:
        return tuple(self.members)


class TarStream:
    """A tar through a pipe. What stands before its first large member is held; the rest passes once."""

    def __init__(self, descriptor: int) -> None:
        self.source = _Pipe(descriptor)
        self.seen: list[str] = []
        self.held: dict[str, bytes] = {}
        self.following = members(self.source)
        self.large = self._hold()

    @property
    def read_whole(self) -> bool:
        return self.large is None

    def _hold(self) -> Member | None:
        """Read up to the first large member, and return it."""
        held_bytes = 0
        for member in self.following:
            self.seen.append(member.name)
            held_bytes += member.size_bytes
            if member.size_bytes > LARGEST_DOCUMENT_BYTES or held_bytes > MOST_HELD_BYTES:
                return member
            self.held[member.name] = self.source.read(member.size_bytes)
        return None

    def document(self, name: str) -> bytes | None:
        if name not in self.held and self.large is not None:
            raise BadArchive(
                f"{name} does not come before the weights, so this archive cannot be read from a pipe",
                "save it as a file, and import that",
            )
        return self.held.get(name)

    def size(self, digest: str) -> int | None:
        content = self.held.get(blob_name(digest))
        return None if content is None else len(content)

    def blobs(self, wanted: Collection[str]) -> Iterator[Found]:
        by_name = {blob_name(digest): digest for digest in wanted}
        for name, content in self.held.items():
            if name in by_name:
                yield Found(by_name[name], len(content), _memory(content))
        member, self.large = self.large, None
        while member is not None:
            if member.name in by_name:
                yield Found(by_name[member.name], member.size_bytes, self._rest(member))
            member = next(self.following, None)
            self.seen += [member.name] if member else []

    def _rest(self, member: Member) -> ReadInto:
        end = member.position + member.size_bytes

        def read_into(buffer: memoryview) -> int:
            return self.source.read_into(buffer[: end - self.source.position]) if self.source.position < end else 0

        return read_into

    def names(self) -> tuple[str, ...]:
        return tuple(self.seen)


class _Disk:
    """The bytes of a file; skipping costs nothing."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size
        self.position = 0

    def read(self, count: int) -> bytes:
        content = os.pread(self.descriptor, count, self.position)
        self.skip(count)
        return content

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self.size_bytes:
            raise _cut()


class _Pipe:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.position = 0

    def read(self, count: int) -> bytes:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            view = view[self.read_into(view) :]
        return bytes(content)

    def read_into(self, buffer: memoryview) -> int:
        with translated("read", "the archive"):
            count = os.readv(self.descriptor, [buffer])
        if count == 0:
            raise _cut()
        self.position += count
        return count

    def skip(self, count: int) -> None:
        buffer = memoryview(bytearray(min(count, 1 << 20)))
        while count:
            count -= self.read_into(buffer[:count])


def _cut() -> BadArchive:
    return BadArchive("the archive is cut short: it ends before its last member does", "copy it again")


def _require_small(member: Member) -> None:
    if member.size_bytes > LARGEST_DOCUMENT_BYTES:
        raise BadArchive(f"{member.name} has {member.size_bytes:,} bytes; at most {LARGEST_DOCUMENT_BYTES:,} are read")


def _window(descriptor: int, start: int, size_bytes: int, path: Path) -> ReadInto:
    """Reads a stretch of a file from its beginning to its end."""
    position, end = start, start + size_bytes
    os.posix_fadvise(descriptor, start, size_bytes, os.POSIX_FADV_SEQUENTIAL)

    def read_into(buffer: memoryview) -> int:
        nonlocal position
        with translated("read", path):
            count = os.preadv(descriptor, [buffer[: end - position]], position) if position < end else 0
        position += count
        return count

    return read_into


def _memory(content: bytes) -> ReadInto:
    left = memoryview(content)

    def read_into(buffer: memoryview) -> int:
        nonlocal left
        count = min(len(buffer), len(left))
        buffer[:count] = left[:count]
        left = left[count:]
        return count

    return read_into


def other_members(archive: Archive, known: Collection[str]) -> tuple[str, ...]:
    """What an archive holds beside `known` blobs and the layout itself."""
    names = {LAYOUT_NAME, INDEX_NAME, *map(blob_name, known)}
    return tuple(name for name in archive.names() if name not in names)
