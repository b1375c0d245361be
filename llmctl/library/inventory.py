"""What a store has beside what the locks pin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from llmctl.core.manifest import Manifest, parse_manifest
from llmctl.core.model import PRIVATE_NAMESPACE
from llmctl.errors import EngineError, LlmctlError, NotFound

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock, Pin
    from llmctl.library.upstream import Upstream
    from llmctl.system.store import Store

PinState = Literal["pinned", "drifted", "unpinned", "missing", "unknown"]
PlainState = Literal["same", "moved", "absent"]
LARGEST_CONFIG_BYTES = 1 << 20
_CONTEXT = re.compile(r"(?<=:[0-9a-f]{12})-c[0-9]+$")


@dataclass(frozen=True)
class Installed:
    """One name of a store. `digest` is its manifest's as 64 hex digits, empty where that cannot be read.

    `manifest` is None where only the server was asked, or the manifest is damaged, which `damaged` explains.
    `shown_weights` is the digest of its weights as the server tells it.
    """

    name: str
    digest: str
    size_bytes: int
    quantization: str | None
    manifest: Manifest | None = None
    damaged: str | None = None
    path: str | None = None
    shown_weights: str | None = None

    @property
    def weights_digest(self) -> str | None:
        return self.manifest.weights.digest if self.manifest and self.manifest.weights else self.shown_weights


@dataclass(frozen=True)
class LibraryEntry:
    """One model. `source` is what its pin was made of: registry, file, or starter, which may stand in for `name`.

    `digest` is its manifest's as 64 hex digits, the pinned one where there is a pin.
    pinned: the alias has the pinned manifest. drifted: the alias has another one now, or only the plain name is
    there. missing: pinned, and the store has neither. unpinned: no lock names it. unknown: the alias has another
    manifest than the one that was made elsewhere, and nobody tells its weights.
    `plain` is what the name itself stands for here: the pinned manifest, another one (`plain_digest`), or
    nothing; None where the pin is none of a registry. `loaded` is None where no server told.
    `disk_bytes` are the blocks of its blobs, those that it shares included.
    """

    name: str
    alias: str | None
    source: str | None
    digest: str
    size_bytes: int
    quantization: str | None
    pin_state: PinState
    loaded: bool | None
    weights_digest: str | None = None
    disk_bytes: int | None = None
    plain: PlainState | None = None
    plain_digest: str | None = None
    damaged: str | None = None
    upstream: Upstream | None = None


def from_store(store: Store) -> tuple[Installed, ...]:
    """Every name in the store on disk, as its manifests say it. LlmctlError where it cannot be read."""
    configs: dict[str, str | None] = {}
    blobs = str(store.blobs_folder)
    return tuple(_stored(blobs, str(ref), path, configs) for ref, path in store.manifests())


def from_server(client: Client) -> tuple[Installed, ...]:
    """Every name that the server lists: what is left where its store cannot be read."""
    return tuple(Installed(model.name, model.digest, model.size_bytes, model.quantization) for model in client.tags())


def with_weights(installed: Iterable[Installed], lock: Lock, client: Client) -> tuple[Installed, ...]:
    """Those of a server, with the weights of the aliases that nothing else can tell about: one request for each."""
    from llmctl.library.weights import digest_of

    made = {pin.alias.lower(): pin.manifest_digest for pin in lock.models if pin.source != "registry"}
    found = []
    for each in installed:
        if made.get(each.name.lower(), f"sha256:{each.digest}") != f"sha256:{each.digest}":
            with suppress(EngineError, NotFound):
                each = replace(each, shown_weights=digest_of(client, each.name, None))
        found.append(each)
    return tuple(found)


def _stored(blobs: str, name: str, path: str, configs: dict[str, str | None]) -> Installed:
    from llmctl.system.files import read_bounded
    from llmctl.system.store import LARGEST_MANIFEST_BYTES

    try:
        manifest = parse_manifest(read_bounded(path, LARGEST_MANIFEST_BYTES))
    except (LlmctlError, ValueError) as error:
        reason = error.message if isinstance(error, LlmctlError) else f"its manifest {path} is damaged: {error}"
        return Installed(name, "", 0, None, damaged=reason, path=path)
    size_bytes = sum(layer.size_bytes for layer in (*manifest.layers, manifest.config))
    digest = manifest.config.digest
    if digest not in configs:
        configs[digest] = _quantization(f"{blobs}/{digest.replace(':', '-')}")
    return Installed(name, manifest.digest.removeprefix("sha256:"), size_bytes, configs[digest], manifest, path=path)


def _quantization(config: str) -> str | None:
    """What the config blob says; the server's own list takes it from there too."""
    from llmctl.system.files import read_bounded

    try:
        said = json.loads(read_bounded(config, LARGEST_CONFIG_BYTES)).get("file_type")
    except (LlmctlError, ValueError, AttributeError):
        return None
    return said if isinstance(said, str) and said else None


def listed(
    installed: Iterable[Installed],
    locks: Iterable[Lock],
    loaded: Iterable[str] | None = (),
    disk: Mapping[str, int] | None = None,
) -> tuple[LibraryEntry, ...]:
    """Every model by name. `loaded` are the manifests in /api/ps (64 hex digits), None where nobody told.

    `disk` is what each blob takes, by digest.
    """
    found = {each.name.lower(): each for each in installed}
    pins = [pin for lock in locks for pin in lock.models]
    look = _Look(found, siblings(found.values()), _Loaded(loaded, found.values(), pins), disk)
    entries = [look.pinned(pin) for pin in pins]
    covered = {pin.served.lower() for pin in pins if pin.source == "registry"} | {pin.alias.lower() for pin in pins}
    entries += [look.unpinned(each) for name, each in found.items() if family_of(name) not in covered]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def family_of(name: str) -> str:
    """The pin's alias of an alias with a context of its own; any other name as it is. In lower case."""
    return _CONTEXT.sub("", name.lower()) if name.lower().startswith(f"{PRIVATE_NAMESPACE}/") else name.lower()


def siblings(installed: Iterable[Installed]) -> dict[str, list[Installed]]:
    """The names by the alias that they are, or are a sibling of with another context."""
    families: dict[str, list[Installed]] = {}
    for each in installed:
        families.setdefault(family_of(each.name), []).append(each)
    return families


class _Loaded:
    """Which weights are in memory. Two names of the same weights share one runner: names say nothing."""

    def __init__(self, manifests: Iterable[str] | None, installed: Iterable[Installed], pins: Iterable[Pin]) -> None:
        self.known = manifests is not None
        self.manifests = set(manifests or ())
        self.weights = {each.weights_digest for each in installed if each.digest in self.manifests} - {None}
        # A model that was deleted stays loaded, and then only its pin knows what it was.
        self.weights |= {
            pin.weights_digest for pin in pins if pin.manifest_digest.removeprefix("sha256:") in self.manifests
        }

    def has(self, digests: Iterable[str], weights: str | None) -> bool | None:
        if not self.known:
            return None
        return weights in self.weights or not self.manifests.isdisjoint(digests)


@dataclass(frozen=True)
class _Look:
    """One look at a store: the names by their lower case, what is loaded, and what each blob takes."""

    found: Mapping[str, Installed]
    families: Mapping[str, list[Installed]]
    loaded: _Loaded
    disk: Mapping[str, int] | None

    def unpinned(self, model: Installed) -> LibraryEntry:
        return LibraryEntry(
            name=model.name,
            alias=None,
            source=None,
            digest=model.digest,
            size_bytes=model.size_bytes,
            quantization=model.quantization,
            pin_state="unpinned",
            loaded=self.loaded.has([model.digest], model.weights_digest),
            weights_digest=model.weights_digest,
            disk_bytes=self.disk_bytes(model),
            damaged=model.damaged,
        )

    def pinned(self, pin: Pin) -> LibraryEntry:
        digest, alias = pin.manifest_digest.removeprefix("sha256:"), pin.alias.lower()
        family, held = self.families.get(alias, []), self.found.get(alias)
        plain = self.found.get(pin.served.lower()) if pin.source == "registry" else None
        return LibraryEntry(
            name=pin.name,
            alias=pin.alias,
            source=pin.source,
            digest=digest,
            size_bytes=pin.size_bytes or next((model.size_bytes for model in family), 0),
            quantization=pin.quantization,
            pin_state=state_of(pin, held, plain),
            loaded=self.loaded.has([digest, *(model.digest for model in family)], pin.weights_digest),
            weights_digest=pin.weights_digest,
            disk_bytes=self.disk_bytes(held or plain),
            plain=plain_state(pin, plain),
            plain_digest=plain.digest or None if plain else None,
            damaged=next((each.damaged for each in (held, plain) if each is not None and each.damaged), None),
        )

    def disk_bytes(self, model: Installed | None) -> int | None:
        if self.disk is None or model is None or model.manifest is None:
            return None
        return sum(self.disk.get(layer.digest, 0) for layer in model.manifest.blobs)


def state_of(pin: Pin, held: Installed | None, plain: Installed | None) -> PinState:
    """`held` is what the alias stands for, `plain` what the name does."""
    if held is None:
        return "missing" if plain is None else "drifted"
    if f"sha256:{held.digest}" == pin.manifest_digest:
        return "pinned"
    # Only a registry's manifest is the same on every machine; elsewhere the weights tell.
    if pin.source == "registry" or held.damaged:
        return "drifted"
    if held.weights_digest is None and held.manifest is None:
        return "unknown"
    return "pinned" if held.weights_digest == pin.weights_digest else "drifted"


def plain_state(pin: Pin, plain: Installed | None) -> PlainState | None:
    if pin.source != "registry":
        return None
    if plain is None:
        return "absent"
    return "same" if f"sha256:{plain.digest}" == pin.manifest_digest else "moved"


def with_upstream(entries: Iterable[LibraryEntry], asked: Mapping[str, Upstream]) -> tuple[LibraryEntry, ...]:
    """The entries with what their registries said, by name."""
    return tuple(
        replace(entry, upstream=asked[entry.name]) if entry.alias and entry.name in asked else entry
        for entry in entries
    )
