"""The profile's model store: what lies in it, who may use it, and what it lies on."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.store import Denied, OtherStoreFacts, StoreFacts
from llmctl.core.model import name_of_alias
from llmctl.core.pin import Lock, name_key
from llmctl.errors import LlmctlError
from llmctl.library import inventory
from llmctl.library.prune import GRACE_SECONDS
from llmctl.system import access, mounts
from llmctl.system.access import PASS, READ, WRITE, Identity
from llmctl.system.store import Store
from llmctl.workflows import store as stores
from llmctl.workflows.gather.shell import user_name
from llmctl.workflows.gather.stored import Troubles, troubles

if TYPE_CHECKING:
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.core.pin import Layer, Pin
    from llmctl.core.profile import Profile
    from llmctl.library.inventory import Installed
    from llmctl.workflows.gather import Given

WORDS: dict[int, Literal["pass", "read", "write"]] = {PASS: "pass", READ: "read", WRITE: "write"}


def gather(given: Given) -> StoreFacts:
    profile = given.profile
    try:
        server = given.of_server
    except NotGathered:
        server = None
    path, problem = place(given, profile, server)
    if path is None:
        return StoreFacts(None, problem)
    who = user_of(given, server)
    denied, unjudged = judged(who, path) if who else ((), ())
    facts = StoreFacts(
        str(path),
        there=is_folder(path),
        served=server is not None and server.answers,
        user=user_name(who.uid) if who else None,
        own=who is not None and who.own,
        used=given.server.last_profile() == profile.reference,
        private=profile.private,
        denied=denied,
        unjudged=unjudged,
        llmctl=llmctl(given),
    )
    return with_contents(with_disk(facts, path), given, profile)


def is_folder(path: Path) -> bool | None:
    """None where this user may not look."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return None
    except OSError:
        return False


def llmctl(given: Given) -> str:
    """llmctl with the rights that the store of the machine's service needs."""
    service = given.server.service
    return "sudo llmctl" if service and service.scope == "system" and os.geteuid() != 0 else "llmctl"


def place(given: Given, profile: Profile, server: ServerFacts | None) -> tuple[Path | None, str]:
    """The store of the profile's server, running or not; None where nothing on this machine tells which it is."""
    if not given.server.address(profile).local:
        return None, "the server is on another machine"
    if server is None:
        return given.server.store(profile), ""
    if server.forwarded:
        return None, f"the server is behind {server.listener.words if server.listener else 'a forwarder'}"
    if server.process is not None and not server.process.here:
        return None, "the server is in a container"
    if server.store is not None:
        return Path(server.store), ""
    if not server.answers:
        return given.server.store(profile), ""
    try:
        return stores.place(given.server, profile).store.path, ""
    except LlmctlError as error:
        return None, error.message


def user_of(given: Given, server: ServerFacts | None) -> Identity | None:
    """Who runs the server, or will."""
    if server is not None and server.pid is not None:
        return access.of_process(server.pid)
    if server is not None and server.answers:
        return None
    service = given.server.service
    if service is not None and service.scope == "system":
        from llmctl.core.unit import USER

        return access.of_name(USER)
    return access.myself()


def judged(who: Identity, store: Path) -> tuple[tuple[Denied, ...], tuple[str, ...]]:
    """What `who` may not do with the store and all above it, and what cannot be told. Where one is barred, nothing
    behind it is looked at."""
    denied, unjudged = [], []
    for path, wanted in asked(store):
        try:
            allowed = access.may(who, path, wanted)
        except OSError:
            continue
        if allowed is False:
            denied.append(of_path(path, wanted))
        elif allowed is None:
            unjudged.append(str(path))
        if allowed is False and wanted == PASS:
            break
    return tuple(denied), tuple(dict.fromkeys(unjudged))


def asked(store: Path) -> Iterator[tuple[Path, int]]:
    """What the server's user needs: Ollama makes what is not there yet, in the last folder that is."""
    for folder in (*reversed(store.parents), store):
        if os.path.lexists(folder) or not is_seen(folder.parent):
            yield folder, PASS
            continue
        yield folder.parent, WRITE
        return
    for folder in (store, store / "blobs", store / "manifests"):
        yield folder, READ
        yield folder, WRITE


def is_seen(folder: Path) -> bool:
    """Whether this user sees what lies in a folder; only then what is not seen there is not there."""
    return os.access(folder, os.X_OK)


def of_path(path: Path, wanted: int) -> Denied:
    found = path.stat()
    return Denied(str(path), f"{stat.S_IMODE(found.st_mode):04o}", user_name(found.st_uid), WORDS[wanted])


def with_disk(facts: StoreFacts, store: Path) -> StoreFacts:
    """The file system that the store is or will be on."""
    mount = mounts.of(store)
    if mount is not None:
        facts = replace(
            facts,
            file_system=mount.kind,
            mounted_at=mount.point,
            source=mount.source,
            rotational=mounts.rotational(mount.device),
            read_only=mount.read_only,
        )
    for folder in (store, *store.parents):
        with suppress(OSError):
            found = os.statvfs(folder)
            return replace(
                facts, free_bytes=found.f_bavail * found.f_frsize, total_bytes=found.f_blocks * found.f_frsize
            )
    return facts


def with_contents(facts: StoreFacts, given: Given, profile: Profile) -> StoreFacts:
    """What is in it, beside what the lock pins."""
    assert facts.path is not None
    store, lock = Store(Path(facts.path)), given.of_profile.lock or Lock()
    names = frozenset(model.name for model in profile.models)
    pins = tuple(pin for pin in lock.models if any(lock.pin(name) == pin for name in names))
    facts = replace(facts, pinned_bytes=sum(pin.size_bytes for pin in pins))
    try:
        installed = inventory.from_store(store)
        files = tuple(store.files())
    except LlmctlError as error:
        return replace(facts, problem=error.message)
    have = frozenset(file.digest for file in files if file.digest and not file.partial)
    found = troubles(store, lock, frozenset(pin.name for pin in pins), installed, files, used=facts.used)
    loose = leftovers(store, installed)
    return replace(
        facts,
        readable=True,
        models=len(installed),
        needed_bytes=needed(found, pins, have, store),
        partials=loose.partials,
        partial_bytes=loose.partial_bytes,
        leftovers=loose.blobs,
        leftover_bytes=loose.blob_bytes,
        missing=found.missing,
        corrupt=found.corrupt,
        drifted=found.drifted,
        writable_by_others=tuple(writable_by_others(store)),
        others=() if profile.private else tuple(others(given, store, installed, names)),
    )


def needed(found: Troubles, pins: tuple[Pin, ...], have: frozenset[str], store: Store) -> int:
    """What a pull of all that is missing would still write. A partial download is sparse: its blocks count."""
    from llmctl.library.disk import partial_bytes

    absent: dict[str, Layer] = {
        blob.digest: blob for pin in pins for blob in pin.blobs if blob.digest not in have and pin.name in found.absent
    }
    done = partial_bytes(store.path, absent.values())
    return max(0, sum(blob.size_bytes for blob in absent.values()) - done)


@dataclass(frozen=True)
class Leftovers:
    partials: int = 0
    partial_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0


def leftovers(store: Store, installed: tuple[Installed, ...]) -> Leftovers:
    """What nobody needs any more, by the rules of `llmctl prune`: nothing of the last hour counts."""
    before = time.time() - GRACE_SECONDS
    named = {layer.digest for each in installed if each.manifest for layer in each.manifest.blobs}
    whole = all(each.manifest is not None for each in installed)
    old = [file for file in (*store.files(), *store.scratch_files()) if file.modified_seconds < before]
    partials = [file for file in old if file.partial]
    blobs = [file for file in old if whole and file.digest and not file.partial and file.digest not in named]
    return Leftovers(
        len(partials),
        sum(file.disk_bytes for file in partials),
        len(blobs),
        sum(file.disk_bytes for file in blobs),
    )


def writable_by_others(store: Store) -> Iterator[str]:
    """Folders in which anybody may put other weights, and files that anybody may change."""
    folders = (store.path, store.blobs_folder, store.path / "manifests")
    for path in (*folders, *(file.path for file in store.files() if file.digest and not file.partial)):
        with suppress(OSError):
            mode = path.stat().st_mode
            # In a sticky folder nobody replaces what is another's.
            if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
                yield str(path)


def others(
    given: Given, store: Store, installed: tuple[Installed, ...], wanted: frozenset[str]
) -> Iterator[OtherStoreFacts]:
    """The stores that have models which this one lacks."""
    here, keys = {key_of(each.name) for each in installed}, {name_key(name) for name in wanted}
    for other in stores.others(given.server, store.path):
        if not other.models:
            continue
        names: set[str] = set()
        with suppress(LlmctlError):
            names = {name_of_alias(str(ref)) or str(ref) for ref in Store(Path(other.path)).names()}
        lacking = tuple(sorted(name for name in names if key_of(name) not in here))
        yield OtherStoreFacts(other.path, other.models, lacking, tuple(n for n in lacking if name_key(n) in keys))


def key_of(name: str) -> str:
    """The model that a name or one of llmctl's aliases stands for, whatever its spelling."""
    return name_key(name_of_alias(name) or name)
