"""What `verify` and `repair` are about, and verify itself: a lock's pins against the store that they lie in."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.errors import LlmctlError, NotFound
from llmctl.library import lock_file, usage
from llmctl.library import verify as checking
from llmctl.system import files
from llmctl.workflows.store import as_root

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Progress
    from llmctl.library.blobs import BadBlob
    from llmctl.library.verify import BadManifest, CheckedModel, Verification
    from llmctl.system.paths import Paths
    from llmctl.workflows.store import OtherStore, Place


@dataclass(frozen=True)
class Scope:
    """What a run is about: the profile, the pins of its lock, and the store that they lie in.

    `client` speaks to the server of that store, None where none runs; `others` looks for more stores. `names`,
    `reference` and `given` are words of the command line: the models, --profile and --store.
    """

    profile: Profile
    lock_path: Path
    pins: tuple[Pin, ...]
    place: Place
    client: Client | None
    paths: Paths
    others: Callable[[], tuple[OtherStore, ...]]
    names: tuple[str, ...]
    reference: str | None
    given: Path | None

    def command(self, verb: str) -> str:
        """The same run as a command line."""
        options = [("--profile", self.reference), ("--store", self.given)]
        given = [str(word) for option, value in options if value is not None for word in (option, value)]
        return f"{self.paths.llmctl} {shlex.join([verb, *self.names, *given])}"

    def as_root(self, verb: str) -> str:
        """The command that does it with root's rights."""
        return as_root(verb, self.place.store.path, self.profile, self.paths)


@dataclass(frozen=True)
class VerifyResult:
    """Whether what is pinned is what is there. `skipped_since` is the oldest check that --since trusted."""

    store: str
    why: str
    server: str | None
    lock: str
    good: bool
    models: tuple[CheckedModel, ...]
    bad_blobs: tuple[BadBlob, ...]
    bad_manifests: tuple[BadManifest, ...]
    hashed: int
    hashed_bytes: int
    skipped: int
    skipped_bytes: int
    skipped_since: str | None
    took_seconds: float
    notes: tuple[str, ...]
    remedy: str | None


def chosen(lock: Lock, names: Sequence[str], lock_path: Path) -> tuple[Pin, ...]:
    """The pins of these names, or all. NotFound where there is none: nothing pinned is nothing proved."""
    if not lock.models:
        raise NotFound(f"{lock_path} pins no model", "llmctl pull MODEL", code="nothing_pinned")
    found = []
    for name in names:
        pin = lock.meant(name)
        if pin is None:
            raise NotFound(f"{lock_path} has no pin for {name}", "llmctl list", code="not_pinned")
        found.append(pin)
    return tuple(dict.fromkeys(found)) or lock.models


def require_rights(verb: str, store: Path, profile: Profile, paths: Paths, *, write: bool = False) -> None:
    """LlmctlError, with the command that has the rights, where this user may not read (and write) the store."""
    wanted = os.R_OK | os.X_OK | (os.W_OK if write else 0)
    for folder in (store, store / "blobs", store / "manifests"):
        if write and _read_only(folder):
            raise files.failure(OSError(errno.EROFS, ""), "write into", folder)
        if _denied(folder, wanted):
            word = "write into" if write else "read"
            raise LlmctlError(
                f"this user may not {word} {folder}", as_root(verb, store, profile, paths), code="permission_denied"
            )


def _read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _denied(folder: Path, wanted: int) -> bool:
    try:
        folder.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(folder, wanted)


def verify(scope: Scope, since_seconds: float | None, progress: Progress) -> VerifyResult:
    """Hash what the pins reach. Nothing in the store is changed."""
    found = checked(scope, since_seconds, progress)
    since = found.skipped_since_seconds
    return VerifyResult(
        store=str(scope.place.store.path),
        why=scope.place.why,
        server=scope.place.running.base_url if scope.place.running else None,
        lock=str(scope.lock_path),
        good=found.good,
        models=found.models,
        bad_blobs=found.bad_blobs,
        bad_manifests=found.bad_manifests,
        hashed=found.hashed,
        hashed_bytes=found.hashed_bytes,
        skipped=found.skipped,
        skipped_bytes=found.skipped_bytes,
        skipped_since=None
        if since is None
        else datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="seconds"),
        took_seconds=found.took_seconds,
        notes=(*found.notes, *old_bytes(scope, found), *elsewhere(scope, found)),
        remedy=None if found.good else remedy(scope, found),
    )


def checked(scope: Scope, since_seconds: float | None, progress: Progress) -> Verification:
    usage.seen(scope.paths, scope.lock_path, lock_file.read(scope.lock_path))
    return checking.verify(
        scope.place.store,
        scope.pins,
        scope.paths.state,
        client=scope.client,
        since_seconds=since_seconds,
        progress=progress,
    )


def remedy(scope: Scope, found: Verification) -> str:
    """The command that mends what was found: where the files are right, the server has to be told."""
    if found.bad_blobs or found.bad_manifests:
        return scope.command("repair")
    return f"{scope.paths.llmctl} down, then {scope.paths.llmctl} up {scope.profile.reference}"


def old_bytes(scope: Scope, found: Verification) -> tuple[str, ...]:
    """What a runner that loaded a blob before has of it, nobody can mend but a new load."""
    bad = {blob.digest for blob in found.bad_blobs}
    weights = {pin.name: pin.weights_digest for pin in scope.pins}
    llmctl = scope.paths.llmctl
    return tuple(
        f"{model.name} is loaded: its runner keeps the bytes that it read, until {llmctl} down and then {llmctl} up"
        for model in found.models
        if model.loaded and weights[model.name] in bad
    )


def elsewhere(scope: Scope, found: Verification) -> tuple[str, ...]:
    """Where models are "gone", another store of this machine often has them."""
    if not any(model.manifest == "missing" for model in found.models):
        return ()
    return tuple(
        f"another model store of this machine is {other.path}, "
        + ("which this user may not read" if other.models is None else f"with {other.models} names")
        for other in scope.others()
    )
