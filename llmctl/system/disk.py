"""Room on a file system."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from llmctl.errors import DiskFull
from llmctl.system import files

MIB = 1 << 20


def disk_full(folder: Path) -> DiskFull:
    """For a child program that said so; what Python itself writes goes through `disk_errors`."""
    return DiskFull(f"cannot write below {folder}: no space left on the disk", f"df -h {folder}")


def disk_errors(folder: Path) -> AbstractContextManager[None]:
    """Turns an OSError of many writes below `folder` into DiskFull, or into an error that names the folder."""
    return files.translated("write below", folder)


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """DiskFull, with both numbers, when the file system of the existing `folder` has less than `needed_bytes`."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DiskFull(
            f"{purpose} needs {needed_bytes // MIB:,} MiB and {folder} has {free_bytes // MIB:,} MiB free",
            f"df -h {folder}",
        )
