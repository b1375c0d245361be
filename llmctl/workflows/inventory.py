"""list: what a store holds beside what the lock pins, from the disk where it can be read, else from its server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.model import ModelRef, moved, name_of_alias
from llmctl.errors import LlmctlError, ServerNotRunning
from llmctl.library import inventory, usage
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile
    from llmctl.library.inventory import Installed, LibraryEntry
    from llmctl.library.usage import DiskUse
    from llmctl.server import Server
    from llmctl.workflows.store import OtherStore, Place


@dataclass(frozen=True)
class Inventory:
    """The models of a store and those that the profile's lock pins.

    `base_url` is None where no server runs. `store` is None where only the server can see it; `why` says why it
    is this one. `findings` are what is wrong, each with the command that helps.
    """

    base_url: str | None
    store: str | None
    why: str
    models: tuple[LibraryEntry, ...]
    disk: DiskUse | None
    others: tuple[OtherStore, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """What was found, and where. `blobs` is what each takes on the disk, by digest."""

    place: Place | None
    base_url: str | None
    why: str
    installed: tuple[Installed, ...]
    disk: DiskUse | None = None
    blobs: Mapping[str, int] | None = None


def look(
    server: Server,
    profile: Profile,
    lock: Lock,
    client: Callable[[str], Client],
    *,
    given: Path | None = None,
    check: bool = False,
) -> Inventory:
    """Everything about the models of the profile's store. ServerNotRunning where only a server could tell."""
    found = contents(server, profile, lock, client, given)
    entries = inventory.listed(found.installed, [lock], loaded(found, client), found.blobs)
    if check:
        from llmctl.library import upstream

        entries = inventory.with_upstream(entries, upstream.ask_all(lock.models, server.environ))
    path = found.place.store.path if found.place else None
    return Inventory(
        base_url=found.base_url,
        store=str(path) if path else None,
        why=found.why,
        models=entries,
        disk=found.disk,
        others=stores.others(server, path) if path else (),
        findings=tuple(finding for entry in entries for finding in findings(entry)),
    )


def contents(
    server: Server, profile: Profile, lock: Lock, client: Callable[[str], Client], given: Path | None
) -> Contents:
    address = server.address(profile)
    try:
        place = stores.place(server, profile, given)
        if place.running is None and given is None and not address.local:
            raise ServerNotRunning(f"no server at {address.url}", f"llmctl up {profile.reference}")
        return on_disk(place)
    except ServerNotRunning:
        raise
    except LlmctlError as error:
        running = None if given is not None else stores.found(server, profile)
        if running is None:
            raise
        why = f"{error.message}; listed by the server"
        asked = client(running.base_url)
        installed = inventory.with_weights(inventory.from_server(asked), lock, asked)
        return Contents(None, running.base_url, why, installed)


def on_disk(place: Place) -> Contents:
    store = place.store
    installed = inventory.from_store(store)
    files = tuple(store.files())
    whole = all(each.manifest is not None for each in installed)
    named = {layer.digest for each in installed if each.manifest for layer in each.manifest.blobs}
    disk = usage.disk_use(store, files, named if whole else None)
    blobs = {file.digest: file.disk_bytes for file in files if file.digest and not file.partial}
    return Contents(place, place.running.base_url if place.running else None, place.why, installed, disk, blobs)


def loaded(found: Contents, client: Callable[[str], Client]) -> list[str] | None:
    """The manifests that are in memory; None where no server tells."""
    if found.base_url is None:
        return []
    try:
        return [model.digest for model in client(found.base_url).ps()]
    except ServerNotRunning:
        return None


def findings(entry: LibraryEntry) -> list[str]:
    """What is wrong with one model, with the command that helps."""
    if entry.damaged:
        return [f"{entry.name} cannot be served: {entry.damaged}; {mend(entry)}"]
    if entry.plain == "moved" and entry.plain_digest:
        return [moved(entry.name, entry.plain_digest, entry.name)]
    if entry.source == "starter" and (served := name_of_alias(entry.alias or "")) not in {None, entry.name}:
        return [f"{served}, the small starter, stands in for {entry.name}: llmctl pull {entry.name} --update"]
    if entry.upstream and entry.upstream.state == "newer" and entry.upstream.digest:
        return [f"{entry.name} is {entry.upstream.digest[:12]} in its registry now: llmctl pull {entry.name} --update"]
    if entry.upstream and entry.upstream.state == "unknown":
        return [f"whether {entry.name} is newer in its registry is unknown: {entry.upstream.reason}"]
    return []


def mend(entry: LibraryEntry) -> str:
    """What to do about a damaged manifest."""
    if entry.alias is not None:
        return f"mend it: llmctl repair {entry.name}"
    # Nobody asks for an alias that no pin names, and its weights may be another's.
    return "delete that file" if ModelRef.parse(entry.name).private else f"mend it: llmctl pull {entry.name}"
