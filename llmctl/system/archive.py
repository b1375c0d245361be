"""Unpack tar archives that came from elsewhere: .tar.zst and .tar.gz, through tarfile's `data` filter, bounded.

The filter (PEP 706) refuses members that would land outside the target, absolute links and devices, and drops
set-uid bits. The bounds keep a small archive from filling the disk.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from llmctl.errors import DownloadFailed, LlmctlError
from llmctl.system.disk import disk_errors

MAX_BYTES = 32 << 30
MAX_MEMBERS = 100_000

# Called with the bytes of the archive read so far, and all of them.
OnBytes = Callable[[int, int], None]


def unpack(
    archive: Path,
    target: Path,
    *,
    on_bytes: OnBytes | None = None,
    wanted: Callable[[str], bool] | None = None,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Unpack `archive` into the existing folder `target`; the number of files' bytes written.

    `wanted` picks members by name. Raises DownloadFailed (code `bad_archive`) for what is cut short, damaged, too
    large or reaches outside, DiskFull when the room ends. What was written until then stays: unpack into a folder
    that you throw away on failure.
    """
    require_data_filter()
    size_bytes = archive.stat().st_size
    written_bytes = 0
    with archive.open("rb") as file, unpack_errors(archive, target), open_tar(archive, file) as tar:
        for count, member in enumerate(tar, 1):
            written_bytes += member.size
            if count > MAX_MEMBERS or written_bytes > max_bytes:
                raise bad(archive, "it unpacks to more than is plausible")
            if wanted is None or wanted(member.name):
                tar.extract(member, target, filter="data")
            if on_bytes is not None:
                on_bytes(file.tell(), size_bytes)
    return written_bytes


@contextmanager
def open_tar(archive: Path, file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    if archive.name.endswith(".zst"):
        import zstandard

        decompressor = zstandard.ZstdDecompressor()
        with (
            decompressor.stream_reader(file, read_across_frames=True, closefd=False) as reader,
            tarfile.open(fileobj=reader, mode="r|") as tar,
        ):
            yield tar
    else:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            yield tar


@contextmanager
def unpack_errors(archive: Path, target: Path) -> Iterator[None]:
    import zlib

    import zstandard

    try:
        with disk_errors(target):
            yield
    except tarfile.FilterError as error:
        raise bad(archive, f"a member of it is not allowed: {error}") from error
    except (tarfile.TarError, zstandard.ZstdError, zlib.error, EOFError) as error:
        raise bad(archive, f"it is damaged or cut short: {error}") from error


def bad(archive: Path, why: str) -> DownloadFailed:
    return DownloadFailed(f"cannot unpack {archive.name}: {why}", code="bad_archive")


def require_data_filter() -> None:
    if not hasattr(tarfile, "data_filter"):
        raise LlmctlError(
            "this Python cannot unpack archives safely (tarfile has no data filter)",
            "use Python 3.10.12, 3.11.4, 3.12 or newer",
            code="python_too_old",
        )
