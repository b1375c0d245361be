"""A file system of a few MiB, so that a disk can be full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path


@contextmanager
def mounted(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A tmpfs of `size_bytes` on `folder`. Needs root and the right to mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield folder
    finally:
        # Lazily: a process that is just ending may still hold a file.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when a tmpfs can be mounted here, else the reason."""
    if os.geteuid() != 0:
        return "mounting a tmpfs needs root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder) / "probe", 1 << 20):
                return None
        except (OSError, subprocess.CalledProcessError) as error:
            return f"a tmpfs cannot be mounted here: {error}"
