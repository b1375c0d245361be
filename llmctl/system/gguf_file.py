"""The header of a GGUF file on this machine, split files included."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.memory import gguf
from llmctl.core.memory.splits import merged, part_names
from llmctl.system.files import translated


def header(path: Path) -> gguf.Gguf:
    """Read a file's header. Raises GgufError with the path, NotFound, or LlmctlError."""
    try:
        return merged([one(path.with_name(name)) for name in part_names(path.name)])
    except gguf.GgufError as error:
        raise gguf.GgufError(f"{path}: {error.message}") from None


def one(path: Path) -> gguf.Gguf:
    with translated("read", path), path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return gguf.parse(read, file.seek(0, 2))
