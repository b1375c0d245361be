"""Models of an archive into a store: blobs first, each hashed before it counts; manifests last.

Nothing here needs a server, and a running one sees every change. The caller holds `Store.changing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.arrival import Arrival, sizes_of
from llmctl.core.drift import drift
from llmctl.core.image_layout import LICENCE_TYPE, BadArchive
from llmctl.core.manifest import parse_manifest
from llmctl.core.memory.gguf import GgufError
from llmctl.core.model import ModelRef, alias_for
from llmctl.core.pin import Pin
from llmctl.errors import LlmctlError, Refused
from llmctl.library import arrivals, weights
from llmctl.system.files import length

if TYPE_CHECKING:
    from llmctl.core.pin import Lock
    from llmctl.system.image_archive import Archive, Found
    from llmctl.system.store import Store

OnBytes = Callable[[int], None]
PinChange = Literal["new", "same", "replaced"]
PlainName = Literal["written", "there", "kept"]
UNFINISHED = "import-"


@dataclass(frozen=True)
class ImportedModel:
    """A model that came. `plain`: whether its plain name was free (written), had it (there), or is another's (kept);
    None for a model that Ollama made, which has its alias only. `pinned`: whether the archive had the pin."""

    name: str
    alias: str
    manifest_digest: str
    weights_digest: str
    quantization: str
    size_bytes: int
    licensed: bool
    pinned: bool
    change: PinChange
    plain: PlainName | None


@dataclass(frozen=True)
class Coming:
    """A model on its way: what arrived, the pin that the lock had, and the one that it will have."""

    arrival: Arrival
    before: Pin | None
    pin: Pin

    @property
    def change(self) -> PinChange:
        return "new" if self.before is None else "same" if self.pin == self.before else "replaced"


@dataclass(frozen=True)
class Plan:
    """What an import has to do. `sizes` is every blob that is needed, `here` those that the store has."""

    coming: tuple[Coming, ...]
    sizes: dict[str, int]
    here: frozenset[str]
    known: frozenset[str]

    @property
    def missing(self) -> dict[str, int]:
        return {digest: size for digest, size in self.sizes.items() if digest not in self.here}

    @property
    def missing_bytes(self) -> int:
        return sum(self.missing.values())


def plan(archive: Archive, lock: Lock, store: Store, draft: Draft, *, name: str | None, update: bool) -> Plan:
    """Read the archive's documents and hold them against the lock and the store, by name and size.

    BadArchive, or Refused where the lock pins other weights and `update` is not given. Nothing is written.
    """
    found, known = arrivals.read(archive, name)
    sizes = sizes_of(found)
    here = frozenset(digest for digest, size in sizes.items() if length(store.blob(digest)) == size)
    for digest, size in sizes.items():
        there = archive.size(digest)
        if there is not None and there != size:
            raise BadArchive(f"the archive has {there:,} bytes of {digest}, its manifest says {size:,}")
        if there is None and archive.read_whole and digest not in here:
            raise lacking(digest)
    coming = tuple(against_lock(each, lock, draft, update) for each in found)
    for each in coming:
        draft.require(each.pin.quantization, each.arrival)
        require_own_alias(each, coming, store)
    return Plan(coming, sizes, here, known | {each.arrival.manifest.digest for each in coming} | sizes.keys())


@dataclass(frozen=True)
class Draft:
    """What a pin without a past says: `wanted` is the quantization that the profile asks of a name."""

    wanted: Callable[[str], str]
    engine: str
    now: str
    source: str

    def require(self, quantization: str, arrival: Arrival) -> None:
        claimed = weights.Weights(None, quantization, None, {})
        weights.require(claimed, self.wanted(arrival.name), arrival.name)

    def pin(self, arrival: Arrival) -> Pin:
        """For an archive without a pin. What the weights are is written in when they are there."""
        ref = ModelRef.parse(arrival.name)
        return Pin(
            name=arrival.name,
            served=str(ref),
            source="registry",
            registry=ref.host,
            manifest_digest=arrival.manifest.digest,
            config=arrival.manifest.config,
            layers=arrival.manifest.layers,
            weights_digest=arrival.weights_digest,
            quantization=self.wanted(arrival.name),
            file_type=None,
            parameters=None,
            alias=alias_for(ref, arrival.manifest.digest),
            engine=self.engine,
            pinned_at=self.now,
            from_=self.source,
        )


def against_lock(arrival: Arrival, lock: Lock, draft: Draft, update: bool) -> Coming:
    before, after = lock.pin(arrival.name), arrival.pin or draft.pin(arrival)
    if before is None:
        return Coming(arrival, None, after)
    made = before.source != "registry" and after.source != "registry"
    ours, theirs = before.manifest_digest, after.manifest_digest
    if made:
        # Ollama's own manifest differs from machine to machine; the weights are what is pinned.
        ours, theirs = before.weights_digest, after.weights_digest
    if ours == theirs and (made or before.source == after.source):
        return Coming(arrival, before, before)
    if not update:
        raise Refused(
            f"{arrival.name} is pinned to {ours}, the archive has {theirs}",
            "the same command with --update accepts the archive's",
            code="drift",
            document=drift(before, arrival.manifest),
        )
    return Coming(arrival, before, after)


def require_own_alias(coming: Coming, every: Iterable[Coming], store: Store) -> None:
    """An alias stands for one model's weights for ever: no archive may give it others."""
    alias, weights_digest = coming.pin.alias, coming.arrival.weights_digest
    others = {each.arrival.weights_digest for each in every if each.pin.alias == alias}
    content = store.manifest(ModelRef.parse(alias))
    # The alias of a registry's manifest carries the digest of that very manifest: a wrong one there is mended.
    if content is not None and coming.pin.source != "registry":
        with suppress(ValueError):
            others |= {layer.digest for layer in [parse_manifest(content).weights] if layer}
    if others - {weights_digest}:
        raise Refused(f"{coming.pin.name} would take {alias}, which stands for other weights", code="alias_taken")


def hashed_here(plan: Plan, store: Store, on_bytes: OnBytes) -> Plan:
    """The plan with only those blobs of the store counted that hash to their names."""
    from llmctl.system.files import translated
    from llmctl.system.hashing import sha256_of

    good = set()
    for digest in plan.here:
        with translated("read", store.blob(digest)):
            if sha256_of(store.blob(digest), on_bytes).digest == digest:
                good.add(digest)
    return replace(plan, here=frozenset(good))


def fetch(archive: Archive, plan: Plan, store: Store, on_bytes: OnBytes) -> None:
    """Bring the missing blobs in. Each is placed when it hashed and, for weights, when its header was read."""
    missing = plan.missing
    for digest in plan.here:
        check_weights(digest, store.blob(digest), plan)
    scratch = store.make_scratch()
    for left in scratch.glob(f"{UNFINISHED}*"):
        left.unlink(missing_ok=True)
    for found in archive.blobs(tuple(missing)):
        temporary = scratch / f"{UNFINISHED}{found.digest[7:]}"
        try:
            bring(found, missing.pop(found.digest), temporary, on_bytes)
            check_weights(found.digest, temporary, plan)
            store.place(temporary, found.digest)
        finally:
            temporary.unlink(missing_ok=True)
    if missing:
        raise lacking(next(iter(missing)))


def lacking(digest: str) -> BadArchive:
    return BadArchive(f"the archive lacks the blob {digest}, and so does the store")


def bring(found: Found, size_bytes: int, temporary: Path, on_bytes: OnBytes) -> None:
    from llmctl.system.copying import copied, writer
    from llmctl.system.files import translated

    if found.size_bytes != size_bytes:
        raise BadArchive(f"the archive has {found.size_bytes:,} bytes of {found.digest}, not {size_bytes:,}")
    with translated("write", temporary):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            came = copied(found.read_into, writer(descriptor), on_bytes)
        finally:
            os.close(descriptor)
    if came.digest != found.digest or came.size_bytes != size_bytes:
        raise BadArchive(f"the blob {found.digest} of the archive hashes to {came.digest} ({came.size_bytes:,} bytes)")


def check_weights(digest: str, path: Path, plan: Plan) -> None:
    """Where the blob is a model's weights: they must be of the quantization that its pin names."""
    for each in plan.coming:
        if each.arrival.weights_digest == digest:
            try:
                weights.require(weights.of_file(path)[1], each.pin.quantization, each.pin.name)
            except GgufError as error:
                raise BadArchive(f"the weights of {each.pin.name} are no GGUF file: {error.message}") from None


def finish(plan: Plan, store: Store) -> tuple[tuple[Pin, ImportedModel], ...]:
    """Make the models visible: every blob is there. The pins to write, and what to say of each."""
    for digest, size in plan.sizes.items():
        # Long after they were hashed: a server that starts deletes what no manifest names yet.
        if length(store.blob(digest)) != size:
            raise LlmctlError(f"the blob {digest} left {store.path} meanwhile", "the same command again")
    done = []
    for each in plan.coming:
        require_own_alias(each, plan.coming, store)
        pin = each.pin
        if each.change != "same":
            _, found = weights.of_file(store.blob(each.arrival.weights_digest))
            pin = replace(pin, file_type=found.file_type, parameters=found.parameters)
        store.write_manifest(ModelRef.parse(pin.alias), each.arrival.content)
        plain = plain_name(each, store)
        if plain == "written":
            store.write_manifest(ModelRef.parse(pin.served), each.arrival.content)
        done.append((pin, shown(each, plain)))
    return tuple(done)


def plain_name(coming: Coming, store: Store) -> PlainName | None:
    """What becomes of the plain name. Another model's is never touched."""
    if coming.pin.source != "registry":
        return None
    content = store.manifest(ModelRef.parse(coming.pin.served))
    if content is None:
        return "written"
    return "there" if content == coming.arrival.content else "kept"


def shown(coming: Coming, plain: PlainName | None) -> ImportedModel:
    arrival, pin = coming.arrival, coming.pin
    return ImportedModel(
        name=pin.name,
        alias=pin.alias,
        manifest_digest=arrival.manifest.digest,
        weights_digest=arrival.weights_digest,
        quantization=pin.quantization,
        size_bytes=sum(blob.size_bytes for blob in arrival.manifest.blobs),
        licensed=any(layer.media_type == LICENCE_TYPE for layer in arrival.manifest.layers),
        pinned=arrival.pin is not None,
        change=coming.change,
        plain=plain,
    )
