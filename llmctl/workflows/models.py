"""pull and rm: the models of one profile's server, and the profile's lock."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.changes import Change, changes, short
from llmctl.core.model import ModelRef, looks_like_path
from llmctl.core.pin import name_key
from llmctl.core.profile import ModelSpec
from llmctl.errors import NotFound, ServerNotRunning, UsageError
from llmctl.library import usage
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Pin
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Consent, Progress
    from llmctl.library import Library
    from llmctl.library.removal import Removed
    from llmctl.server import Running, Server

STARTER = "starter"


@dataclass(frozen=True)
class PullResult:
    """What a name stands for now, and whether anything had to be done. Digests are `sha256:<64 hex>`.

    Where the pin was moved: the manifest that it had, and what is different in the new one.
    """

    name: str
    alias: str
    manifest_digest: str
    weights_digest: str
    quantization: str
    size_bytes: int
    source: str
    changed: bool
    note: str
    lock: str
    previous_digest: str | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class RemoveResult:
    name: str
    deleted: tuple[str, ...]
    unpinned: bool


def running(server: Server, profile: Profile) -> Running:
    """The profile's server. ServerNotRunning when there is none: a store has no other door."""
    address = server.address(profile)
    found = server.find(address)
    if found is None:
        raise ServerNotRunning(f"no server at {address.url}", f"llmctl up {profile.reference}")
    return found


def spec_for(profile: Profile, asked: str, name: str | None, quantization: str | None) -> ModelSpec:
    """What a person means by `asked`: a model of the profile, the starter, a GGUF file, or a registry name.

    No stand-in here: who pulls a model by name wants that model or an error.
    """
    key = name_key(asked)
    known = next((model for model in profile.models if name_key(model.name) == key), None)
    if known is not None:
        spec = replace(known, fallback=None)
    elif looks_like_path(asked):
        spec = ModelSpec(name_of_file(asked), source=str(existing(asked)))
    elif asked == STARTER:
        from llmctl.system import starter

        spec = ModelSpec(starter.NAME, source=STARTER)
    else:
        spec = ModelSpec(asked)
    if name is not None and spec.source == "registry":
        raise UsageError(
            f"{asked} has a name of its own; --name is for GGUF files and the starter", "llmctl pull --help"
        )
    # The context belongs to `up`, which makes the alias for it without another download.
    return replace(spec, name=name or spec.name, quantization=quantization or spec.quantization, context=None)


def existing(asked: str) -> Path:
    path = Path(asked).expanduser().absolute()
    if not path.exists():
        raise NotFound(f"no file {path}", f"ls -l {path.parent}")
    return path


def name_of_file(path: str) -> str:
    """A model name out of a file's name: what is not allowed there becomes a dash."""
    stem = re.sub(r"\.gguf$", "", Path(path).name, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:80] or "model"
    return str(ModelRef.parse(name))


def admit(spec: ModelSpec, profile: Profile, running: Running, server: Server, client: Client) -> None:
    """Refuse a download that would not lie where the profile wants it."""
    from llmctl.workflows import gate

    gate.admit(spec, profile, running, server, client)


def pull(
    spec: ModelSpec,
    library: Library,
    lock_path: Path,
    running: Running,
    *,
    update: bool,
    progress: Progress,
    consent: Consent,
) -> PullResult:
    """Have the model and its pin in the lock. Repeatable; goes on where an interrupted one stopped."""
    with stores.changing(running, progress, consent) as ask:
        lock = library.read_lock(lock_path)
        pinned = library.ensure(
            spec,
            lock,
            server_context=0,
            engine_version=running.version,
            store=Path(running.store) if running.store else None,
            update=update,
            progress=progress,
            consent=ask,
        )
        pin, previous = pinned.pin, pinned.previous
        library.change_lock(lock_path, lambda now: now.repinned(lock.pin(pin.name), pin))
        given_back = give_name_back(library.client, pin, ask)
    return PullResult(
        name=pin.name,
        alias=pinned.alias,
        manifest_digest=pin.manifest_digest,
        weights_digest=pin.weights_digest,
        quantization=pin.quantization,
        size_bytes=pin.size_bytes,
        source=pin.from_,
        changed=pinned.changed or bool(given_back),
        note="; ".join(note for note in (pinned.note, given_back) if note),
        lock=str(lock_path),
        previous_digest=previous.manifest_digest if previous else None,
        changes=changes(previous.layers, previous.config, pin.layers, pin.config) if previous else (),
    )


def give_name_back(client: Client, pin: Pin, consent: Consent) -> str:
    """Where another pull moved the plain name, give it the pinned manifest again; what was done, in words."""
    found = {model.name.lower(): model.digest for model in client.tags()}.get(pin.served.lower())
    if pin.source != "registry" or found is None or f"sha256:{found}" == pin.manifest_digest:
        return ""
    consent(
        f"Here {pin.served} itself stands for {found[:12]} now, pinned is {short(pin.manifest_digest)}. "
        f"Give the name its pinned model back, which leaves {found[:12]} without a name."
    )
    client.copy(pin.alias, pin.served)
    return f"{pin.served} stood for {found[:12]} and stands for its pinned model again"


def remove(
    name: str,
    library: Library,
    lock_path: Path,
    running: Running,
    *,
    server: Server,
    progress: Progress,
    consent: Consent,
) -> RemoveResult:
    """Delete a model and its pin; the consent is asked for one that this or another known lock pins."""
    removed: Removed
    beside = tuple(
        other
        for other in usage.known_locks(server.paths.state, server.paths.config.glob("*.lock"))
        if other.path != str(lock_path.absolute())
    )
    with stores.changing(running, progress, consent) as ask:
        try:
            removed, _ = library.remove(name, library.read_lock(lock_path), ask, beside)
        except NotFound as error:
            if running.store is None:
                raise
            raise stores.elsewhere(error, server, Path(running.store), name) from None
        library.change_lock(lock_path, lambda lock: lock.without(removed.name))
    return RemoveResult(removed.name, removed.deleted, removed.unpinned)
