"""Is what is pinned what is there, byte for byte? The manifests of the aliases, every blob, what a server serves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.digest import digest_of
from llmctl.core.manifest import Manifest, parse_manifest
from llmctl.core.model import ModelRef
from llmctl.core.pin import WEIGHTS_MEDIA_TYPE
from llmctl.errors import LlmctlError, ServerNotRunning
from llmctl.library import blobs
from llmctl.library.blobs import BadBlob, Wanted
from llmctl.system.verified import Verified

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Layer, Pin
    from llmctl.core.progress import Progress
    from llmctl.system.store import Store

ManifestState = Literal["pinned", "missing", "damaged", "other"]
Served = Literal["pinned", "not_listed", "other"]


@dataclass(frozen=True)
class BadManifest:
    """A manifest that does not stand for the pinned weights. `expected` and `found` are manifest digests.

    missing: the alias is not in the store. damaged: no manifest, `reason` says why. other: a whole one of other bytes
    or, where `expected` is None because a server made it, one that names other weights.
    """

    alias: str
    model: str
    state: ManifestState
    expected: str | None
    found: str | None
    reason: str
    path: str


@dataclass(frozen=True)
class CheckedModel:
    """One pin. `good`: its manifests and blobs are whole, and a server that runs serves them.

    `served` is None where no server was asked. `loaded`: a runner has these weights in memory.
    """

    name: str
    alias: str
    good: bool
    manifest: ManifestState
    served: Served | None
    loaded: bool | None
    bad_blobs: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What `verify` found. Times are Unix seconds; `skipped_since_seconds` is the oldest check that was trusted."""

    models: tuple[CheckedModel, ...]
    bad_blobs: tuple[BadBlob, ...]
    bad_manifests: tuple[BadManifest, ...]
    hashed: int
    hashed_bytes: int
    skipped: int
    skipped_bytes: int
    skipped_since_seconds: float | None
    took_seconds: float
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return all(model.good for model in self.models)


@dataclass(frozen=True)
class Standing:
    """One name of a pin in the store: its alias, or the alias with a context of its own (`context` tokens)."""

    pin: Pin
    ref: ModelRef
    context: int | None
    content: bytes | None
    manifest: Manifest | None
    state: ManifestState
    reason: str

    @property
    def digest(self) -> str | None:
        return None if self.content is None else digest_of(self.content)

    @property
    def made_here(self) -> bool:
        """Whether a server wrote the manifest, so that it differs on the next machine."""
        return self.context is not None or self.pin.source != "registry"

    def bad(self, store: Store) -> BadManifest | None:
        if self.state == "pinned":
            return None
        expected = None if self.made_here else self.pin.manifest_digest
        path = str(store.manifest_path(self.ref))
        return BadManifest(str(self.ref), self.pin.name, self.state, expected, self.digest, self.reason, path)


def verify(
    store: Store,
    pins: Iterable[Pin],
    state: Path,
    *,
    client: Client | None,
    since_seconds: float | None,
    progress: Progress,
) -> Verification:
    """Hash every blob that the pins reach, each once, and look at their manifests and at what `client` serves.

    `state` is the folder with the notes of what was hashed; `since_seconds` is how old a note may be to count.
    Nothing in the store is changed. LlmctlError where the store itself cannot be read.
    """
    started = time.monotonic()
    pins = tuple(pins)
    standings = [standing for pin in pins for standing in standings_of(store, pin)]
    notes = Verified(state, store.path)
    checked = blobs.check(store, wanted_by(standings), notes, since_seconds, progress)
    serving, said = _serving(client, store)
    models = tuple(_model(pin, standings, checked.bad, serving) for pin in pins)
    return Verification(
        models=models,
        bad_blobs=checked.bad,
        bad_manifests=tuple(bad for standing in standings if (bad := standing.bad(store)) is not None),
        hashed=checked.hashed,
        hashed_bytes=checked.hashed_bytes,
        skipped=checked.skipped,
        skipped_bytes=checked.skipped_bytes,
        skipped_since_seconds=checked.skipped_since_seconds,
        took_seconds=time.monotonic() - started,
        notes=said,
    )


def _serving(client: Client | None, store: Store) -> tuple[Serving | None, tuple[str, ...]]:
    """None, and why, where the server ended while blobs were hashed: what was found on the disk stands."""
    try:
        return Serving.of(client, store), ()
    except ServerNotRunning as error:
        return None, (f"what a server serves was not seen: {error.message}",)


def standings_of(store: Store, pin: Pin) -> list[Standing]:
    """The alias, there or not, and those of its siblings with a context that the store has."""
    alias = ModelRef.parse(pin.alias)
    siblings = (replace(alias, tag=name) for name in sorted(_tags_beside(store, alias)))
    found = [(alias, None), *((ref, int(ref.tag.rpartition("-c")[2])) for ref in siblings)]
    return [_standing(store, pin, ref, context) for ref, context in found]


def _tags_beside(store: Store, alias: ModelRef) -> list[str]:
    try:
        entries = list(store.manifest_path(alias).parent.iterdir())
    except OSError:
        return []
    start = f"{alias.tag}-c"
    return [each.name for each in entries if each.name.startswith(start) and each.name[len(start) :].isdecimal()]


def _standing(store: Store, pin: Pin, ref: ModelRef, context: int | None) -> Standing:
    absent = Standing(pin, ref, context, None, None, "missing", "")
    try:
        content = store.manifest(ref)
    except LlmctlError as error:
        return replace(absent, state="damaged", reason=error.message)
    if content is None:
        return absent
    try:
        manifest = parse_manifest(content)
    except ValueError as error:
        return replace(absent, content=content, state="damaged", reason=f"no manifest: {error}")
    found = replace(absent, content=content, manifest=manifest, state="pinned")
    weights = manifest.weights.digest if manifest.weights else None
    if not found.made_here and manifest.digest != pin.manifest_digest:
        return replace(found, state="other", reason=f"pinned is {pin.manifest_digest}, it is {manifest.digest}")
    if weights != pin.weights_digest:
        return replace(found, state="other", reason=f"its weights are {weights or 'none'}, pinned {pin.weights_digest}")
    return found


def wanted_by(standings: Iterable[Standing]) -> list[Wanted]:
    """Every blob once, with the models that need it, by digest."""
    needed: dict[str, Wanted] = {}
    for standing in standings:
        # The weights are always wanted; a lock that was made without sight of the store has no layers.
        layers = reached(standing)
        if standing.pin.weights_digest not in {layer.digest for layer in layers}:
            weights = standing.pin.weights_digest
            known = needed.get(weights) or Wanted(weights, None, (WEIGHTS_MEDIA_TYPE,), ())
            needed[weights] = replace(known, models=_with(known.models, standing.pin.name))
        for layer in layers:
            known = needed.get(layer.digest) or Wanted(layer.digest, layer.size_bytes, (), ())
            needed[layer.digest] = replace(
                known,
                size_bytes=layer.size_bytes if known.size_bytes is None else known.size_bytes,
                media_types=_with(known.media_types, layer.media_type),
                models=_with(known.models, standing.pin.name),
            )
    return [needed[digest] for digest in sorted(needed)]


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else tuple(sorted((*names, name)))


def reached(standing: Standing) -> tuple[Layer, ...]:
    """The blobs behind one name: the lock's word where it has one, and what a server's own manifest names."""
    pin = standing.pin
    locked = (*pin.layers, *([pin.config] if pin.config else []))
    weights = tuple(layer for layer in locked if layer.digest == pin.weights_digest)
    if not standing.made_here:
        return locked
    if standing.manifest is not None and standing.state == "pinned":
        # Ollama may have made the other blobs anew, here or on another machine.
        known = {layer.digest for layer in weights}
        return (*weights, *(layer for layer in standing.manifest.blobs if layer.digest not in known))
    return weights


@dataclass(frozen=True)
class Serving:
    """What a server lists and has loaded, in digests of 64 hex digits. `weights` is that of each manifest."""

    tags: Mapping[str, str]
    loaded: tuple[tuple[str, str], ...]
    weights: Mapping[str, str]

    @classmethod
    def of(cls, client: Client | None, store: Store) -> Serving | None:
        """None where no server was asked."""
        if client is None:
            return None
        loaded = tuple((model.name.lower(), model.digest) for model in client.ps())
        tags = {model.name.lower(): model.digest for model in client.tags()}
        return cls(tags, loaded, _weights_by_manifest(store) if loaded else {})


def _weights_by_manifest(store: Store) -> dict[str, str]:
    """For each manifest of the store, by its digest, the weights that it names."""
    found = {}
    for ref in store.names():
        try:
            manifest = parse_manifest(store.manifest(ref) or b"null")
        except (LlmctlError, ValueError):
            continue
        if manifest.weights is not None:
            found[manifest.digest.removeprefix("sha256:")] = manifest.weights.digest
    return found


def _model(pin: Pin, standings: Iterable[Standing], bad: Iterable[BadBlob], serving: Serving | None) -> CheckedModel:
    mine = [standing for standing in standings if standing.pin is pin]
    broken = tuple(blob.digest for blob in bad if pin.name in blob.models)
    reasons = [
        f"{standing.ref}: {standing.state}" + (f": {standing.reason}" if standing.reason else "")
        for standing in mine
        if standing.state != "pinned"
    ]
    if broken:
        reasons.append(f"{len(broken)} of its blobs {'is' if len(broken) == 1 else 'are'} bad")
    served = loaded = None
    if serving is not None:
        served, said = _served(mine, serving)
        loaded, runs = _loaded(pin, mine, serving)
        reasons += [*said, *runs]
    return CheckedModel(pin.name, pin.alias, not reasons, mine[0].state, served, loaded, broken, tuple(reasons))


def _served(standings: list[Standing], serving: Serving) -> tuple[Served, list[str]]:
    """Whether the server lists each whole name with the very manifest that is in the store."""
    worst: Served = "pinned"
    said = []
    for standing in standings:
        listed = serving.tags.get(str(standing.ref).lower())
        if listed is None:
            worst = "not_listed"
            said.append(f"{standing.ref}: the server does not list it")
        elif standing.state == "pinned" and f"sha256:{listed}" != standing.digest:
            worst = "other"
            said.append(f"{standing.ref}: the server serves {listed[:12]}, the store has {str(standing.digest)[7:19]}")
    return worst, said


def _loaded(pin: Pin, standings: list[Standing], serving: Serving) -> tuple[bool, list[str]]:
    """Whether a runner has the pinned weights. Names prove nothing: two of the same weights share one runner."""
    names = {str(standing.ref).lower() for standing in standings}
    loaded, said = False, []
    for name, digest in serving.loaded:
        if serving.weights.get(digest) == pin.weights_digest or f"sha256:{digest}" == pin.manifest_digest:
            loaded = True
        elif name in names:
            said.append(f"{name}: what is loaded under it is {digest[:12]}, which is not of the pinned weights")
    return loaded, said
