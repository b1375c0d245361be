"""What the weights of an installed model are: from its blob where the store can be read, else from /api/show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.manifest import Manifest, parse_manifest
from llmctl.core.memory import gguf
from llmctl.core.memory.ggml import FILE_TYPES, GUESSED
from llmctl.core.model import ModelRef
from llmctl.errors import LlmctlError, Refused
from llmctl.system.store import Store

if TYPE_CHECKING:
    from llmctl.client import Client


@dataclass(frozen=True)
class Weights:
    """`quantization` is the name of `general.file_type`; None where the file does not say."""

    file_type: int | None
    quantization: str | None
    parameters: int | None
    tensor_types: dict[str, int]

    @property
    def described(self) -> str:
        """The quantization with the tensors beside it: some rows cannot have the type that the name promises."""
        tensors = ", ".join(f"{count} {name}" for name, count in self.tensor_types.items())
        return f"{self.quantization or 'no file type'}{f' ({tensors} tensors)' if tensors else ''}"


def require(weights: Weights, wanted: str, name: str) -> None:
    """Refused unless the weights are of the quantization that the profile asks for."""
    if weights.quantization != wanted:
        raise Refused(
            f"{name} is {weights.described}, and the profile asks for {wanted}",
            f"choose another tag, or say `quantization: {weights.quantization or '...'}` for it in the profile",
            code="quantization",
        )


def of_file(path: Path) -> tuple[gguf.Gguf, Weights]:
    """Read the header of a GGUF file. Raises GgufError with the path, NotFound, or LlmctlError."""
    with _opened(path) as (read, size_bytes):
        try:
            header = gguf.parse(read, size_bytes)
        except gguf.GgufError as error:
            raise gguf.GgufError(f"{path}: {error.message}") from None
    return header, Weights(header.file_type, header.quantization, header.parameters, header.tensor_types)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    from llmctl.system.files import translated

    with translated("read", path), path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        yield read, file.seek(0, 2)


def of_model(client: Client, name: str, digest: str | None, store: Path | None) -> Weights:
    """The weights of an installed model; `digest` is that of its GGUF blob."""
    blob = Store(store).blob(digest) if store and digest else None
    if blob and _readable(blob):
        return of_file(blob)[1]
    shown = client.show(name)
    info = shown.get("model_info") or {}
    file_type = info.get("general.file_type")
    file_type = file_type & ~GUESSED if isinstance(file_type, int) else None
    types = Counter(str(tensor.get("type")) for tensor in shown.get("tensors") or [])
    parameters = info.get("general.parameter_count")
    return Weights(
        file_type,
        None if file_type is None else FILE_TYPES.get(file_type),
        parameters if isinstance(parameters, int) else None,
        dict(types.most_common()),
    )


def digest_of(client: Client, name: str, store: Path | None) -> str | None:
    """The digest of an installed model's GGUF blob, `sha256:<64 hex>`. None where there is none."""
    if (manifest := manifest_of(name, store)) is not None:
        return manifest.weights.digest if manifest.weights else None
    # /api/show writes `FROM <models>/blobs/sha256-<hex>` (facts read in server/routes.go:1396).
    text = str(client.show(name).get("modelfile", ""))
    found = re.search(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", text, re.MULTILINE)
    return f"sha256:{found.group(1)}" if found else None


def manifest_of(name: str, store: Path | None) -> Manifest | None:
    """The manifest of an installed model out of the store. None where the store cannot be read."""
    if store is None:
        return None
    try:
        content = Store(store).manifest(ModelRef.parse(name))
        return parse_manifest(content) if content is not None else None
    except (LlmctlError, ValueError):
        return None


def _readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False
