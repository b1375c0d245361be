"""A model as it travels: the OCI image layout 1.1, with llmctl's pin beside the manifest that Ollama reads.

Each model stands in `index.json` twice. First its own manifest, the very bytes, so that its digest is the pinned
one: this is what oras copies to a registry and Ollama pulls. Then an OCI artifact whose layers are the pin, the
manifest again and every blob: skopeo refuses Ollama's layer types inside a docker manifest ("unsupported docker
v2s2 media type", 1.9.3) and carries anything inside an OCI one. Its `subject` is the model's manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmctl.core.digest import digest_of
from llmctl.core.manifest import MEDIA_TYPE, Manifest, parse_manifest
from llmctl.core.pin import Layer, Pin
from llmctl.errors import Refused

T = TypeVar("T")

LAYOUT_NAME, INDEX_NAME = "oci-layout", "index.json"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
ARTIFACT_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
PIN_TYPE = "application/vnd.llmctl.pin.v1+json"
# Not docker's own type: a client would send the blob as a manifest, and the registry would then miss the blob.
MANIFEST_LAYER_TYPE = "application/vnd.llmctl.manifest.v1+json"
LICENCE_TYPE = "application/vnd.ollama.image.license"
EMPTY = Layer("application/vnd.oci.empty.v1+json", digest_of(b"{}"), 2)
EMPTY_CONTENT = b"{}"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
NAME_ANNOTATION = "llmctl.name"
ALIAS_ANNOTATION = "llmctl.alias"
ARTIFACT_SUFFIX = ".oci"

LARGEST_DOCUMENT_BYTES = 4 << 20
MOST_MODELS = 1000
MOST_LEVELS = 2
# A tag has up to 128 characters; some stay for a digest and the suffix.
LONGEST_REF = 100


class BadArchive(Refused):
    """An archive that is damaged, cut short, or made to do harm. Nothing of it was accepted."""

    code = "bad_archive"


@dataclass(frozen=True)
class Descriptor:
    """An entry of an index: the digest `sha256:<64 hex>` and size of a document, and what is said of it."""

    media_type: str
    digest: str
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> str | None:
        """The model's name, where the annotations say one."""
        ref = self.annotations.get(REF_ANNOTATION, "")
        return self.annotations.get(NAME_ANNOTATION) or (ref if ":" in ref else None)


@dataclass(frozen=True)
class Packed:
    """A pinned model and its manifest's bytes, ready to travel. `ref` names it inside the archive."""

    pin: Pin
    manifest: Manifest
    content: bytes
    ref: str

    @property
    def artifact_ref(self) -> str:
        return self.ref + ARTIFACT_SUFFIX

    @property
    def licensed(self) -> bool:
        return any(layer.media_type == LICENCE_TYPE for layer in self.manifest.layers)


def blob_name(digest: str) -> str:
    """Where a layout keeps the blob `sha256:<64 hex>`."""
    return f"blobs/{digest.replace(':', '/')}"


def ref_for(name: str, digest: str, taken: Iterable[str]) -> str:
    """A reference that skopeo, oras and registries all take as a tag.

    `:` and `/` become `-`, and so does any run of signs: skopeo wants single ones between letters and digits. The
    first 12 hex digits of the manifest follow where the name is long or `taken`.
    """
    ref = re.sub(r"[^A-Za-z0-9]{2,}|[^A-Za-z0-9._-]", "-", name).strip("._-")
    if len(ref) <= LONGEST_REF and ref not in taken:
        return ref
    return f"{ref[:LONGEST_REF].rstrip('._-')}-{digest.removeprefix('sha256:')[:12]}"


def documents(models: Iterable[Packed]) -> dict[str, bytes]:
    """The small members of an archive, by name: the layout, the index, manifests, artifacts and pins."""
    members: dict[str, bytes] = {}
    natives, artifacts = [], []

    def add(media_type: str, content: bytes) -> dict[str, Any]:
        members[blob_name(digest_of(content))] = content
        return _descriptor(Layer(media_type, digest_of(content), len(content)))

    for model in models:
        native = add(MEDIA_TYPE, model.content)
        names = {NAME_ANNOTATION: model.pin.name, ALIAS_ANNOTATION: model.pin.alias}
        pin = add(PIN_TYPE, compact(model.pin.to_dict()))
        artifact = {
            "schemaVersion": 2,
            "mediaType": ARTIFACT_MANIFEST_TYPE,
            "artifactType": PIN_TYPE,
            "config": add(EMPTY.media_type, EMPTY_CONTENT),
            "layers": [pin, native | {"mediaType": MANIFEST_LAYER_TYPE}, *map(_descriptor, model.manifest.blobs)],
            "subject": native,
            "annotations": names,
        }
        natives.append(native | {"annotations": {REF_ANNOTATION: model.ref, **names}})
        artifacts.append(
            add(ARTIFACT_MANIFEST_TYPE, compact(artifact))
            | {"artifactType": PIN_TYPE, "annotations": {REF_ANNOTATION: model.artifact_ref, **names}}
        )
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": natives + artifacts}
    return {LAYOUT_NAME: LAYOUT_CONTENT, INDEX_NAME: compact(index), **members}


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()


def _descriptor(layer: Layer) -> dict[str, Any]:
    return {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size_bytes}


def checked(what: str, content: bytes, parse: Callable[[bytes], T]) -> T:
    """`parse(content)`; whatever is wrong with a document that came from elsewhere is BadArchive."""
    try:
        return parse(content)
    except RecursionError:
        raise BadArchive(f"{what} is nested too deep") from None
    except ValueError as error:
        raise BadArchive(f"{what} is no such document: {error}") from None


def index_of(what: str, content: bytes) -> tuple[Descriptor, ...] | None:
    """The entries of an index; None for a document that is none."""
    document = checked(what, content, json.loads)
    entries = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    if len(entries) > MOST_MODELS:
        raise BadArchive(f"{what} lists {len(entries)} manifests")
    return tuple(_entry(what, entry) for entry in entries)


def _entry(what: str, entry: object) -> Descriptor:
    if not isinstance(entry, dict):
        raise BadArchive(f"{what} has an entry that is none")
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise BadArchive(f"{what} names {str(digest)[:80]!r}; llmctl takes sha256 digests")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadArchive(f"{what} gives {digest} the size {str(size)[:80]!r}")
    said = entry.get("annotations")
    annotations = {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}
    return Descriptor(str(entry.get("mediaType")), digest, size, annotations)


def artifact_of(what: str, content: bytes) -> tuple[Layer, Layer] | None:
    """The pin's and the manifest's layer of llmctl's artifact; None for a document that is no such artifact."""
    document = checked(what, content, json.loads)
    if not isinstance(document, dict) or document.get("artifactType") != PIN_TYPE:
        return None
    layers = checked(what, content, parse_manifest).layers
    pins = [layer for layer in layers if layer.media_type == PIN_TYPE]
    manifests = [layer for layer in layers if layer.media_type == MANIFEST_LAYER_TYPE]
    if len(pins) != 1 or len(manifests) != 1:
        raise BadArchive(f"{what} has {len(pins)} pins and {len(manifests)} manifests; it should have one of each")
    return pins[0], manifests[0]
