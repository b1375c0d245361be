"""A clock that a test lets jump, for one unit: a small library that is preloaded into it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from tests.parts import machine

_SOURCE = Path(__file__).with_name("clock_shift.c")
NAME = "clock_shift.so"


@lru_cache(maxsize=1)
def library() -> Path:
    """Compiled once for its source. Needs a C compiler, as the stand-in for NVML does."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + os.uname().machine.encode()).hexdigest()
    folder = machine.CACHE / "clock" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / NAME
    with FileLock(folder / "lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                part = Path(scratch) / NAME
                command = [machine.ENVIRON.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"]
                subprocess.run([*command, "-shared", "-fPIC", "-o", part, _SOURCE], check=True)
                part.rename(target)
    return target


def shift(path: Path, *, wall: int = 0, slept: int = 0) -> None:
    """Seconds by which the wall clock is ahead, and by which the machine seems to have slept."""
    part = path.with_suffix(".part")
    part.write_text(f"{wall} {slept}\n")
    part.replace(path)
