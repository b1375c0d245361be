"""Where a blob that a pin names can be had again, and how it comes into the store's scratch folder, hashed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.model import ModelRef
from llmctl.errors import LlmctlError, Refused, UsageError
from llmctl.library.blobs import BadBlob
from llmctl.system import blob_download, starter
from llmctl.system.blob_download import FetchedBlob
from llmctl.system.files import translated
from llmctl.system.hashing import sha256_of

if TYPE_CHECKING:
    from llmctl.core.pin import Layer, Pin
    from llmctl.system.hashing import Hashed
    from llmctl.system.store import Store

# The cheapest first.
Kind = Literal["store", "file", "registry", "starter", "engine"]
KINDS: tuple[Kind, ...] = ("store", "file", "registry", "starter", "engine")

ENGINE = "the server, which makes it anew"

OnBytes = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Source:
    """`text` names it to a person. engine: no bytes to be had, a server makes the model anew from `pin`."""

    kind: Kind
    text: str
    pin: Pin
    ref: ModelRef | None = None
    path: Path | None = None

    @property
    def fetches(self) -> bool:
        """Whether something comes over the network."""
        return self.kind in {"registry", "starter"}


def misplaced(blobs: Iterable[BadBlob]) -> dict[str, Path]:
    """Bytes that lie under the name of another blob: the files, by what they are. What a link leads to is not the
    store's to move."""
    found = {bad.found_digest: Path(bad.path) for bad in blobs if bad.found_digest is not None}
    return {digest: path for digest, path in found.items() if not path.is_symlink()}


def kept(blobs: Sequence[BadBlob], store: Store) -> dict[str, Path]:
    """The misplaced bytes that another bad blob is looking for, linked into the scratch folder: they stay there while
    the names are set right one after the other. What cannot be linked is left out."""
    wanted, links = {bad.digest for bad in blobs}, {}
    for digest, path in misplaced(blobs).items():
        if digest not in wanted:
            continue
        # Not under the name of an unfinished download, which is written into.
        link = store.make_scratch() / f"{digest.replace(':', '-')}.kept"
        with suppress(OSError):
            link.unlink(missing_ok=True)
            # One that became a link since is linked as such, and is no file to place.
            os.link(path, link, follow_symlinks=False)
            links[digest] = link
    return links


def sources_of(bad: BadBlob, pins: Iterable[Pin], elsewhere: Mapping[str, Path]) -> list[Source]:
    """Every place that the locked pins name for a blob, the best first. `elsewhere` are files of the store itself."""
    needing = [pin for pin in pins if pin.name in bad.models]
    found = [_source(bad.digest, pin) for pin in needing]
    if (path := elsewhere.get(bad.digest)) is not None:
        found.append(Source("store", "the store, where it lay under another name", needing[0], path=path))
    return sorted(dict.fromkeys(found), key=lambda source: KINDS.index(source.kind))


def _source(digest: str, pin: Pin) -> Source:
    if pin.source == "registry" and digest in {layer.digest for layer in pin.blobs}:
        ref = origin(pin)
        return Source("registry", f"{ref.host}/{ref.namespace}/{ref.model}", pin, ref)
    if pin.source == "starter" and digest == f"sha256:{starter.SHA256}":
        return Source("starter", f"pypi:{starter.PACKAGE}=={starter.VERSION}", pin)
    if pin.source == "file" and (path := file_of(pin)) is not None and pin.from_.endswith(f" {digest}"):
        return Source("file", str(path), pin, path=path)
    return Source("engine", ENGINE, pin)


def origin(pin: Pin) -> ModelRef:
    """The repository that a registry pin came from; that of its name where it says none (an archive)."""
    found = re.fullmatch(r"https?://([^/?#]+)/v2/([^/?#]+)/([^/?#]+)/manifests/([^/?#]+)", pin.from_)
    if found:
        host, namespace, model, tag = found.groups()
        try:
            return ModelRef.parse(f"{host}/{namespace}/{model}:{tag}")
        except UsageError:
            pass
    return ModelRef.parse(pin.served)


def file_of(pin: Pin) -> Path | None:
    """The GGUF file that a file pin was made of: `from` is its path and its digest."""
    found = re.fullmatch(r"(/.+) sha256:[0-9a-f]{64}", pin.from_)
    return Path(found[1]) if found else None


def bring(
    source: Source, layer: Layer, store: Store, cache: Path, environ: Mapping[str, str], on_bytes: OnBytes
) -> FetchedBlob:
    """The blob as a file of the scratch folder, whole and hashed. Refused where the source has other bytes now."""
    folder = store.make_scratch()
    if source.ref is not None:
        return blob_download.fetch_blob(source.ref, layer, folder, environ, on_bytes)
    if source.kind == "store" and source.path is not None:
        with translated("read", source.path):
            found = sha256_of(source.path)
        return FetchedBlob(_right(found, source.path, source.path, layer), 0)
    target = blob_download.partial_path(folder, layer.digest)
    if source.path is not None:
        return FetchedBlob(_copied(source, source.path, target, layer, on_bytes), 0)
    with starter.fetched(cache, environ, lambda _: None) as path:
        return FetchedBlob(_copied(source, path, target, layer, on_bytes), starter.SIZE_BYTES)


def _copied(source: Source, path: Path, target: Path, layer: Layer, on_bytes: OnBytes) -> Path:
    from llmctl.system.copying import copied, writer

    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_bytes(done, layer.size_bytes)

    if not path.is_file():
        raise Refused(f"{source.pin.name} was made of {path}, which is gone", _again(source.pin), code="source_gone")
    with translated("read", path), path.open("rb", buffering=0) as file:
        with translated("write", target):
            target.unlink(missing_ok=True)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            found = copied(lambda buffer: file.readinto(buffer) or 0, writer(descriptor), count)
        finally:
            os.close(descriptor)
    return _right(found, path, target, layer)


def _right(found: Hashed, path: Path, target: Path, layer: Layer) -> Path:
    if found.digest != layer.digest:
        target.unlink(missing_ok=True)
        raise Refused(f"{path} has other bytes now: {found.digest}, pinned {layer.digest}", code="source_changed")
    return target


def _again(pin: Pin) -> str:
    return f"put the file back, or: llmctl pull FILE --name {pin.name} --update"


def first(errors: list[LlmctlError]) -> LlmctlError:
    """Of several failures the one to tell: a source that may answer later, before one that never will."""
    return next((error for error in errors if not isinstance(error, Refused)), errors[0])
