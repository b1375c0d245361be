"""What the server has beside what the locks pin, and how a model is removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmctl.core.model import PRIVATE_NAMESPACE, ModelRef, alias_for, name_of_alias
from llmctl.errors import NotFound

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.client.types import InstalledModel
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.progress import Consent

PinState = Literal["pinned", "drifted", "unpinned", "missing"]


@dataclass(frozen=True)
class LibraryEntry:
    """One model. `source` is what its pin was made of: registry, file, or starter, which may stand in for `name`.

    `digest` is its manifest's as 64 hex digits, the pinned one where there is a pin.
    pinned: the alias has the pinned manifest. drifted: the alias, or the plain name, has another one now.
    missing: pinned, and the server has neither. unpinned: no lock names it.
    """

    name: str
    alias: str | None
    source: str | None
    digest: str
    size_bytes: int
    quantization: str | None
    pin_state: PinState
    loaded: bool


@dataclass(frozen=True)
class Removed:
    """What `remove` deleted from the server, and whether a pin went too."""

    name: str
    deleted: tuple[str, ...]
    unpinned: bool


def listed(client: Client, locks: Iterable[Lock]) -> tuple[LibraryEntry, ...]:
    tags = {model.name: model for model in client.tags()}
    loaded = {model.digest for model in client.ps()}
    pins = [pin for lock in locks for pin in lock.models]
    entries = [pinned_entry(pin, tags, loaded) for pin in pins]
    covered = {pin.served for pin in pins if pin.source == "registry"} | {pin.alias for pin in pins}
    entries += [
        unpinned_entry(model, model.digest in loaded)
        for name, model in tags.items()
        if name not in covered and not any(name.startswith(f"{pin.alias}-c") for pin in pins)
    ]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def unpinned_entry(model: InstalledModel, loaded: bool) -> LibraryEntry:
    return LibraryEntry(
        name=model.name,
        alias=None,
        source=None,
        digest=model.digest,
        size_bytes=model.size_bytes,
        quantization=model.quantization,
        pin_state="unpinned",
        loaded=loaded,
    )


def pinned_entry(pin: Pin, tags: Mapping[str, InstalledModel], loaded: set[str]) -> LibraryEntry:
    digest = pin.manifest_digest.removeprefix("sha256:")
    family = [tags[name] for name in tags if name == pin.alias or name.startswith(f"{pin.alias}-c")]
    return LibraryEntry(
        name=pin.name,
        alias=pin.alias,
        source=pin.source,
        digest=digest,
        size_bytes=pin.size_bytes or next((model.size_bytes for model in family), 0),
        quantization=pin.quantization,
        pin_state=state_of(pin, tags),
        loaded=any(model.digest in loaded for model in family) or digest in loaded,
    )


def state_of(pin: Pin, tags: Mapping[str, InstalledModel]) -> PinState:
    found = tags.get(pin.alias)
    plain = tags.get(pin.served) if pin.source == "registry" else None
    if found is None:
        return "missing" if plain is None else "drifted"
    # Only a registry's manifest is the same on every machine.
    if pin.source == "registry" and f"sha256:{found.digest}" != pin.manifest_digest:
        return "drifted"
    return "pinned"


def removal(client: Client, name: str, lock: Lock, consent: Consent) -> tuple[Removed, Lock]:
    pin = lock.pin(name) or next((pin for pin in lock.models if name in {pin.alias, pin.served}), None)
    tags = {model.name: model.digest for model in client.tags()}
    doomed = sorted(tags.keys() & names_of(name, pin, tags), key=len, reverse=True)
    if not doomed and pin is None:
        raise NotFound(f"no model {name} here", "llmctl list", code="model_not_found")
    if pin is not None:
        consent(f"{pin.name} is pinned by the profile's lock. Remove it and its pin.")
    loaded = {model.digest for model in client.ps()}
    for each in doomed:
        if tags[each] in loaded:
            # Deleting does not unload: the weights would stay on the GPU.
            client.unload(each)
        client.delete(each)
    return Removed(pin.name if pin else name, tuple(doomed), pin is not None), lock.without(pin.name) if pin else lock


def names_of(name: str, pin: Pin | None, installed: Iterable[str]) -> set[str]:
    """The plain name and every alias of it, those of earlier pins and of other contexts included."""
    plain = pin.served if pin else str(ModelRef.parse(name))
    long = alias_for(ModelRef.parse(plain), "0" * 12).rpartition(":")[0]
    aliases = {each for each in installed if name_of_alias(each) == plain or each.rpartition(":")[0] == long}
    own = set() if pin and pin.source != "registry" else {plain}
    return own | {alias for alias in aliases if alias.startswith(f"{PRIVATE_NAMESPACE}/")}
