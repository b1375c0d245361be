"""Which models an archive has: from llmctl's artifacts, and from bare manifests that other tools copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmctl.core.arrival import Arrival, arrival, pin_from, require_one_each
from llmctl.core.digest import digest_of
from llmctl.core.image_layout import (
    EMPTY,
    INDEX_NAME,
    LARGEST_DOCUMENT_BYTES,
    LAYOUT_NAME,
    MOST_LEVELS,
    MOST_MODELS,
    BadArchive,
    Descriptor,
    artifact_of,
    blob_name,
    checked,
    index_of,
)
from llmctl.core.manifest import parse_manifest
from llmctl.errors import UsageError

if TYPE_CHECKING:
    from llmctl.core.pin import Layer
    from llmctl.system.image_archive import Archive


def read(archive: Archive, given_name: str | None) -> tuple[tuple[Arrival, ...], frozenset[str]]:
    """The models, and the digest of every document that belongs to them.

    `given_name` is for an archive of one model without a pin. BadArchive for what cannot be accepted.
    """
    if archive.document(LAYOUT_NAME) is None:
        raise BadArchive("this is no OCI image layout: it has no oci-layout", "llmctl export writes one")
    pinned: list[Arrival] = []
    bare: list[tuple[Descriptor, bytes]] = []
    known: set[str] = set()
    for descriptor, content in manifests(archive, known):
        artifact = artifact_of(descriptor.digest, content)
        if artifact is None:
            bare.append((descriptor, content))
        else:
            pinned.append(from_artifact(archive, *artifact, known))
    covered = {each.manifest.digest for each in pinned}
    rest = [(descriptor, content) for descriptor, content in bare if descriptor.digest not in covered]
    found = {(each.name, each.manifest.digest): each for each in pinned + named(rest, given_name)}
    if not found:
        raise BadArchive("the archive has no model in it")
    require_one_each(found.values())
    return tuple(found[key] for key in sorted(found)), frozenset(known)


def manifests(archive: Archive, known: set[str]) -> Iterator[tuple[Descriptor, bytes]]:
    """Every manifest that the index reaches, through indexes inside it too, each hashed."""
    content = archive.document(INDEX_NAME)
    if content is None:
        raise BadArchive("the archive has no index.json")
    waiting = [(1, INDEX_NAME, content)]
    while waiting:
        level, what, content = waiting.pop()
        entries = index_of(what, content)
        if entries is None:
            raise BadArchive(f"{what} is no index")
        for entry in entries:
            if entry.digest in known:
                continue
            known.add(entry.digest)
            if len(known) > MOST_MODELS:
                raise BadArchive(f"the archive has more than {MOST_MODELS:,} manifests")
            found = document(archive, entry, what)
            if index_of(entry.digest, found) is None:
                yield entry, found
            elif level == MOST_LEVELS:
                raise BadArchive(f"{what} has an index inside an index; llmctl follows {MOST_LEVELS}")
            else:
                waiting.append((level + 1, entry.digest, found))


def document(archive: Archive, wanted: Descriptor | Layer, named_by: str) -> bytes:
    """A small blob, hashed."""
    if wanted.size_bytes > LARGEST_DOCUMENT_BYTES:
        raise BadArchive(f"{named_by} names a document of {wanted.size_bytes:,} bytes: {wanted.digest}")
    content = archive.document(blob_name(wanted.digest))
    if content is None:
        raise BadArchive(f"{named_by} names {wanted.digest}, which the archive does not have")
    digest = digest_of(content)
    if digest != wanted.digest or len(content) != wanted.size_bytes:
        raise BadArchive(f"{wanted.digest} of the archive hashes to {digest} ({len(content):,} bytes)")
    return content


def from_artifact(archive: Archive, pin_layer: Layer, manifest_layer: Layer, known: set[str]) -> Arrival:
    content = document(archive, manifest_layer, "the artifact")
    manifest = checked(manifest_layer.digest, content, parse_manifest)
    pin = pin_from(document(archive, pin_layer, "the artifact"), manifest)
    known |= {pin_layer.digest, manifest_layer.digest, EMPTY.digest}
    return arrival(pin.name, manifest, content, pin)


def named(bare: list[tuple[Descriptor, bytes]], given_name: str | None) -> list[Arrival]:
    """The models without a pin, called as asked or as the index says."""
    models = []
    for descriptor, content in bare:
        manifest = checked(descriptor.digest, content, parse_manifest)
        if manifest.weights is not None:
            models.append((descriptor, manifest, content))
    if given_name is not None and len(models) != 1:
        raise UsageError(f"--name is for an archive of one model without a pin; this has {len(models)}")
    arrivals = []
    for descriptor, manifest, content in models:
        name = given_name or descriptor.named
        if name is None:
            message = f"the archive does not say what the model {manifest.digest[7:19]} is called"
            raise UsageError(message, "give it: --name NAME:TAG")
        arrivals.append(arrival(name, manifest, content))
    return arrivals
