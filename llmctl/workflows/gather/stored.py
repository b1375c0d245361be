"""What is wrong with the models of a store, by what their manifests and the lock say. Nothing is hashed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmctl.core.checks.facts.store import Trouble
from llmctl.core.model import moved
from llmctl.library import inventory
from llmctl.library.inventory import Installed, LibraryEntry

if TYPE_CHECKING:
    from llmctl.core.pin import Lock, Pin
    from llmctl.system.store import Store, StoredFile

DIGITS = 12


@dataclass(frozen=True)
class Troubles:
    """`absent` are the pinned names of which something is not there."""

    missing: tuple[Trouble, ...]
    corrupt: tuple[Trouble, ...]
    drifted: tuple[Trouble, ...]
    absent: frozenset[str]


@dataclass(frozen=True)
class _Look:
    store: Store
    lock: Lock
    wanted: frozenset[str]
    installed: dict[str, Installed]
    lengths: dict[str, int]


def troubles(
    store: Store,
    lock: Lock,
    wanted: frozenset[str],
    installed: tuple[Installed, ...],
    files: tuple[StoredFile, ...],
    *,
    used: bool,
) -> Troubles:
    """`wanted` are the pinned names that the profile has. Not `used`: `up` has not got the models yet, so what is
    wholly absent is not missed."""
    lengths = {file.digest: file.size_bytes for file in files if file.digest and not file.partial}
    look = _Look(store, lock, wanted, {each.name.lower(): each for each in installed}, lengths)
    entries = inventory.listed(installed, [lock], loaded=None)
    pinned = [(entry, pin) for entry in entries if entry.alias and (pin := lock.pin(entry.name)) is not None]
    missing = [found for entry, pin in pinned if (found := _missing(look, entry, pin, used)) is not None]
    return Troubles(
        tuple(missing),
        tuple(_corrupt(look, entries)),
        tuple(found for entry, pin in pinned for found in _drifted(look, entry, pin)),
        frozenset(pin.name for _, pin in pinned if not {blob.digest for blob in pin.blobs} <= lengths.keys()),
    )


def _missing(look: _Look, entry: LibraryEntry, pin: Pin, used: bool) -> Trouble | None:
    """The first thing that a pinned model lacks: a blob, or the name that it is served by. Where its alias has other
    weights, the server may well have taken the old ones for unused: that is drift."""
    if entry.damaged or (entry.pin_state == "drifted" and pin.alias.lower() in look.installed):
        return None
    wanted = pin.name in look.wanted
    there = [blob for blob in pin.blobs if blob.digest in look.lengths]
    if not there and entry.pin_state == "missing" and not used:
        return None
    for blob in pin.blobs:
        path = str(look.store.blob(blob.digest))
        found = look.lengths.get(blob.digest)
        if found is None:
            return Trouble(pin.name, f"its blob of {blob.size_bytes:,} bytes is not there", path, wanted)
        if found != blob.size_bytes:
            return Trouble(pin.name, f"its blob has {found:,} of {blob.size_bytes:,} bytes", path, wanted)
    if pin.alias.lower() not in look.installed and entry.plain != "moved":
        words = f"its blobs are there, and {pin.alias}, the name it is served by, is not"
        return Trouble(pin.name, words, "", wanted, "up")
    return None


def _corrupt(look: _Look, entries: tuple[LibraryEntry, ...]) -> Iterator[Trouble]:
    for entry in entries:
        if not entry.damaged:
            continue
        pin = look.lock.pin(entry.name) if entry.alias else None
        names = (pin.alias, pin.served) if pin else (entry.name,)
        held = (look.installed.get(name.lower()) for name in names)
        path = next((each.path for each in held if each is not None and each.damaged and each.path), "")
        yield Trouble(entry.name, entry.damaged, path, entry.name in look.wanted, made(pin) if pin else "pull")


def _drifted(look: _Look, entry: LibraryEntry, pin: Pin) -> Iterator[Trouble]:
    """An alias with other weights than the pinned ones, or a plain name that a client would get others by."""
    held = look.installed.get(pin.alias.lower())
    wanted = pin.name in look.wanted
    if held is not None and entry.pin_state == "drifted" and not held.damaged:
        found = held.weights_digest
        same = found == pin.weights_digest
        what = (
            f"{pin.alias} has the manifest {held.digest[:DIGITS]}, {_short(pin.manifest_digest)} is pinned"
            if same or found is None
            else f"{pin.alias} has the weights {_short(found)}, {_short(pin.weights_digest)} are pinned"
        )
        yield Trouble(pin.name, what, held.path or "", wanted, made(pin))
    elif entry.plain == "moved" and entry.plain_digest:
        plain = look.installed.get(pin.served.lower())
        words = moved(pin.served, entry.plain_digest, pin.name)
        path = plain.path if plain and plain.path else ""
        yield Trouble(pin.name, words.partition(";")[0], path, wanted, "pull")


def made(pin: Pin) -> Literal["repair", "up"]:
    """What puts a pin's manifest right: a registry has it, and any other was made here."""
    return "repair" if pin.source == "registry" else "up"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGITS]
