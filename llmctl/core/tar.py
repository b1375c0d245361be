"""Headers of tar archives, one at a time: written so that the same files give the same bytes, read within bounds.

tarfile does the encoding of a single header. Its reader is not used: it follows links, holds every header, and
reads an extended header of any size into memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from llmctl.core.image_layout import BadArchive

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
LARGEST_EXTENSION_BYTES = 64 << 10
MOST_MEMBERS = 100_000
# What is often mistaken for a tar, by its first bytes.
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}

_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE}
_EXTENSIONS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME}
_REFUSED = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class Source(Protocol):
    """Bytes in their order. `position` counts what was read and skipped; both raise BadArchive at the end."""

    position: int

    def read(self, count: int) -> bytes: ...

    def skip(self, count: int) -> None: ...


@dataclass(frozen=True)
class Member:
    """A regular file inside an archive. `position` is where its bytes begin."""

    name: str
    size_bytes: int
    position: int


def header(name: str, size_bytes: int) -> bytes:
    """What stands before a file. No time and no owner; a size over 8 GiB is written as GNU tar writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size_bytes: int) -> bytes:
    """What stands behind a file."""
    return bytes(-size_bytes % BLOCK_BYTES)


def archive_bytes(sizes: Iterator[int]) -> int:
    """How large an archive of files of these sizes is."""
    return sum(BLOCK_BYTES + size + -size % BLOCK_BYTES for size in sizes) + len(END)


def members(source: Source) -> Iterator[Member]:
    """Every regular file, in order, each name once. The reader may read a member before it asks for the next.

    BadArchive for what has no place in a layout: names that lead outside, links, devices, a name twice.
    """
    seen: set[str] = set()
    extension: dict[str, str] = {}
    for _ in range(MOST_MEMBERS):
        block = source.read(BLOCK_BYTES)
        if block == bytes(BLOCK_BYTES):
            return
        info = parsed(block)
        if info.type in _EXTENSIONS:
            extension = {**extension, **_extension(info, source)}
            continue
        name = _name(extension.get("path", info.name))
        size_bytes = _size(extension.get("size"), info.size, name)
        extension = {}
        end = source.position + size_bytes + len(padding(size_bytes))
        if info.type in _FILES:
            if name in seen:
                raise BadArchive(f"the archive has {name!r} twice")
            seen.add(name)
            yield Member(name, size_bytes, source.position)
        elif info.type != tarfile.DIRTYPE:
            what = _REFUSED.get(info.type, f"of type {info.type!r}")
            raise BadArchive(f"the archive has {name!r}, which is {what}; a layout has files only")
        source.skip(end - source.position)
    raise BadArchive(f"the archive has more than {MOST_MEMBERS:,} members")


def parsed(block: bytes) -> tarfile.TarInfo:
    for magic, what in COMPRESSED.items():
        if block.startswith(magic):
            raise BadArchive(f"the file is compressed ({what}); unpack it to the plain tar first")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadArchive(f"the file is no tar archive, or damaged: {error}") from None


def _extension(info: tarfile.TarInfo, source: Source) -> dict[str, str]:
    """A longer name, or PAX's `path` and `size`."""
    if not 0 <= info.size <= LARGEST_EXTENSION_BYTES:
        raise BadArchive(f"the archive has an extended header of {info.size:,} bytes")
    content = source.read(info.size)
    source.skip(len(padding(info.size)))
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or len(length) > 9 or not len(length) + 1 < int(length) <= len(content):
            raise BadArchive("the archive has a damaged extended header")
        key, _, value = content[len(length) + 1 : int(length) - 1].decode("utf-8", "surrogateescape").partition("=")
        if key.startswith("GNU.sparse"):
            raise BadArchive("the archive has a sparse member; llmctl takes whole files")
        found[key] = value
        content = content[int(length) :]
    return found


def _name(name: str) -> str:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadArchive(f"the archive has a member named {name[:200]!r}, which leads outside")
    return "/".join(parts)


def _size(extended: str | None, plain: int, name: str) -> int:
    size_bytes = plain if extended is None else int(extended) if extended.isdecimal() and len(extended) < 20 else -1
    if size_bytes < 0:
        raise BadArchive(f"the archive gives {name!r} an impossible size")
    return size_bytes
