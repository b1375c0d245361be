"""Pinned models out of a store into one archive. Every blob is hashed while it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.drift import drift
from llmctl.core.image_layout import INDEX_NAME, LAYOUT_NAME, Packed, blob_name, documents, ref_for
from llmctl.core.manifest import parse_manifest
from llmctl.core.model import ModelRef
from llmctl.core.tar import END, archive_bytes, header, padding
from llmctl.errors import NotFound, Refused
from llmctl.system.files import length

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.core.pin import Layer, Lock, Pin
    from llmctl.system.copying import Write
    from llmctl.system.store import Store


@dataclass(frozen=True)
class ExportedModel:
    """`ref` names the model's own manifest inside the archive, `artifact_ref` the artifact with its pin."""

    name: str
    alias: str
    ref: str
    artifact_ref: str
    manifest_digest: str
    weights_digest: str
    quantization: str
    size_bytes: int
    licensed: bool


@dataclass(frozen=True)
class Export:
    """What an archive will hold: small documents by member name, and the blobs behind them."""

    models: tuple[Packed, ...]
    documents: dict[str, bytes]
    blobs: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        sizes = [*map(len, self.documents.values()), *(blob.size_bytes for blob in self.blobs)]
        return archive_bytes(iter(sizes))

    @property
    def shown(self) -> tuple[ExportedModel, ...]:
        return tuple(
            ExportedModel(
                name=model.pin.name,
                alias=model.pin.alias,
                ref=model.ref,
                artifact_ref=model.artifact_ref,
                manifest_digest=model.manifest.digest,
                weights_digest=model.pin.weights_digest,
                quantization=model.pin.quantization,
                size_bytes=sum(blob.size_bytes for blob in model.manifest.blobs),
                licensed=model.licensed,
            )
            for model in self.models
        )


def plan(names: Iterable[str], lock: Lock, store: Store) -> Export:
    """The archive of these models. NotFound for what is not pinned, Refused for what is not there as pinned."""
    models: list[Packed] = []
    for pin in sorted({pin_of(name, lock) for name in names}, key=lambda pin: pin.name):
        manifest, content = manifest_of(pin, store)
        taken = [model.ref for model in models]
        models.append(Packed(pin, manifest, content, ref_for(pin.name, manifest.digest, taken)))
    small = documents(models)
    blobs = {blob.digest: blob for model in models for blob in model.manifest.blobs}
    for blob in blobs.values():
        require_whole(blob, models, store)
    rest = [blob for blob in blobs.values() if blob_name(blob.digest) not in small]
    return Export(tuple(models), small, tuple(sorted(rest, key=lambda blob: (blob.size_bytes, blob.digest))))


def pin_of(name: str, lock: Lock) -> Pin:
    """UsageError for what is no model name, NotFound for what the lock does not pin."""
    ModelRef.parse(name)
    if (pin := lock.meant(name)) is not None:
        return pin
    raise NotFound(f"{name} is not pinned", f"llmctl pull {name}", code="not_pinned")


def manifest_of(pin: Pin, store: Store) -> tuple[Manifest, bytes]:
    """The pinned manifest, from the alias, or from the plain name where that still has it."""
    found, other = None, None
    for name in (pin.alias, pin.served) if pin.source == "registry" else (pin.alias,):
        content = store.manifest(ModelRef.parse(name))
        if content is None:
            continue
        try:
            manifest = parse_manifest(content)
        except ValueError as error:
            found, other = f"its manifest is damaged: {error}", None
            continue
        # Ollama itself wrote the manifest of a file or the starter: there the weights are what is pinned.
        ours, pinned = manifest.digest, pin.manifest_digest
        if pin.source != "registry":
            ours, pinned = manifest.weights.digest if manifest.weights else "nothing", pin.weights_digest
        if ours == pinned:
            return manifest, content
        found, other = f"pinned {pinned}, there is {ours}", manifest
    if found is None:
        raise NotFound(f"{pin.name} is pinned and not in {store.path}", f"llmctl pull {pin.name}", code="missing")
    message = f"{pin.name} is not as pinned: {found}"
    raise Refused(message, f"llmctl repair {pin.name}", code="drift", document=drift(pin, other))


def require_whole(blob: Layer, models: Iterable[Packed], store: Store) -> None:
    """Refused for a blob that is missing or has another length: nothing is written then."""
    found = length(store.blob(blob.digest))
    if found != blob.size_bytes:
        what = "is missing" if found is None else f"has {found:,} bytes, it should have {blob.size_bytes:,}"
        raise bad(blob, what, models)


def bad(blob: Layer, what: str, models: Iterable[Packed]) -> Refused:
    name = next(model.pin.name for model in models if blob in model.manifest.blobs)
    return Refused(f"{name}: the blob {blob.digest} {what}", f"llmctl repair {name}", code="bad_blob")


def write(export: Export, store: Store, out: Write, on_bytes: Callable[[int], None]) -> None:
    """Write the archive. Refused when a blob is not what its name says; what was written until then is no archive."""
    first = {name: export.documents[name] for name in (LAYOUT_NAME, INDEX_NAME)}
    for name, content in {**first, **dict(sorted(export.documents.items()))}.items():
        out(memoryview(header(name, len(content)) + content + padding(len(content))))
    for blob in export.blobs:
        out(memoryview(header(blob_name(blob.digest), blob.size_bytes)))
        write_blob(blob, export, store, out, on_bytes)
        out(memoryview(padding(blob.size_bytes)))
    out(memoryview(END))


def write_blob(blob: Layer, export: Export, store: Store, out: Write, on_bytes: Callable[[int], None]) -> None:
    from llmctl.system.copying import copied
    from llmctl.system.files import translated

    path = store.blob(blob.digest)
    with translated("read", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    left = blob.size_bytes

    def read_into(buffer: memoryview) -> int:
        nonlocal left
        with translated("read", path):
            count = os.readv(descriptor, [buffer[:left]]) if left else 0
        left -= count
        return count

    try:
        found = copied(read_into, out, on_bytes)
    finally:
        os.close(descriptor)
    if found.digest != blob.digest:
        raise bad(blob, f"hashes to {found.digest}", export.models)
