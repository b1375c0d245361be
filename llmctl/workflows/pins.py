"""verify and repair: the pins of one profile's lock against the store that they lie in."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.model import ModelRef
from llmctl.core.progress import Step
from llmctl.errors import LlmctlError, NotFound, Refused, UsageError
from llmctl.library import verify as checking
from llmctl.library.obtain import CONSENT_BYTES
from llmctl.system import files

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Consent, Progress
    from llmctl.library.blobs import BadBlob
    from llmctl.library.remade import Maker
    from llmctl.library.repair import Mended, Mending, Need, NotMended
    from llmctl.library.verify import BadManifest, CheckedModel, Verification
    from llmctl.system.paths import Paths
    from llmctl.workflows.store import Place


@dataclass(frozen=True)
class Scope:
    """What a run is about: the profile, the pins of its lock, and the store that they lie in.

    `client` speaks to the server of that store, None where none runs. `names`, `reference` and `given` are the
    words of the command line: the models, --profile and --store.
    """

    profile: Profile
    lock_path: Path
    pins: tuple[Pin, ...]
    place: Place
    client: Client | None
    paths: Paths
    names: tuple[str, ...]
    reference: str | None
    given: Path | None

    def command(self, verb: str) -> str:
        """The same run as a command line."""
        options = [("--profile", self.reference), ("--store", self.given)]
        given = [str(word) for option, value in options if value is not None for word in (option, value)]
        return shlex.join(["llmctl", verb, *self.names, *given])

    def as_root(self, verb: str) -> str:
        """The command that does it with root's rights: sudo knows neither this user's folders nor PATH."""
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
        pin = next((pin for pin in lock.models if name == pin.name or _same(name, pin)), None)
        if pin is None:
            raise NotFound(f"{lock_path} has no pin for {name}", "llmctl list", code="not_pinned")
        found.append(pin)
    return tuple(dict.fromkeys(found)) or lock.models


def _same(name: str, pin: Pin) -> bool:
    try:
        ref = ModelRef.parse(name).full.lower()
        return ref in {ModelRef.parse(known).full.lower() for known in (pin.name, pin.served, pin.alias)}
    except UsageError:
        return False


def as_root(verb: str, store: Path, profile: Profile, paths: Paths) -> str:
    config, reference, path = (shlex.quote(str(each)) for each in (paths.config, profile.reference, store))
    return f'sudo env LLMCTL_CONFIG_DIR={config} "$(command -v llmctl)" {verb} --profile {reference} --store {path}'


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
        notes=old_bytes(scope, found),
        remedy=None if found.good else remedy(scope, found),
    )


def checked(scope: Scope, since_seconds: float | None, progress: Progress) -> Verification:
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
    return f"llmctl down, then llmctl up {scope.profile.reference}"


@dataclass(frozen=True)
class RepairResult:
    """What was bad and is right again, and what still is not. In a dry run `mended` is what would be."""

    store: str
    why: str
    server: str | None
    lock: str
    dry_run: bool
    good: bool
    mended: tuple[Mended, ...]
    failed: tuple[NotMended, ...]
    fetched_bytes: int
    models: tuple[CheckedModel, ...]
    notes: tuple[str, ...]
    remedy: str | None


def repair(
    scope: Scope, environ: Mapping[str, str], since_seconds: float | None, progress: Progress, consent: Consent
) -> RepairResult:
    """Verify, and mend what is bad. A blob that hashes is never touched, a bad one stays until a good one is there.

    Consent is asked before a store that is not llmctl's own is changed, and before a large download.
    Raises what kept a source from answering, after everything else is mended.
    """
    from llmctl.library import disk
    from llmctl.library.repair import Mending, need
    from llmctl.system.verified import Verified

    started = time.time()
    found = checked(scope, since_seconds, progress)
    if not (found.bad_blobs or found.bad_manifests):
        return repaired(scope, found, found, None)
    store = scope.place.store
    require_rights("repair", store.path, scope.profile, scope.paths, write=True)
    needed = need(found, scope.pins, store)
    ask(scope, found, needed, consent)
    with store.changing(lambda: progress(Step("store", "store", detail="another llmctl is changing it"))):
        disk.require_room(store.path, needed.write_bytes, "the repair")
        mending = Mending(store, scope.pins, maker(scope, environ, progress), Verified(scope.paths.state, store.path))
        mending.run(found)
    # What was hashed in this run, and on the way here, counts.
    age_seconds = max(since_seconds or 0.0, time.time() - started + 1.0)
    after = checked(scope, age_seconds, lambda _: None)
    failure = next((error for error in mending.errors if not isinstance(error, Refused)), None)
    if failure is not None:
        raise failure
    return repaired(scope, found, after, mending)


def maker(scope: Scope, environ: Mapping[str, str], progress: Progress) -> Maker:
    from llmctl.library.remade import Maker

    version = scope.place.running.version if scope.place.running else ""
    return Maker(scope.client, version, scope.paths, environ, progress, f"llmctl up {scope.profile.reference}")


def ask(scope: Scope, found: Verification, needed: Need, consent: Consent) -> None:
    """Consent where the store is not llmctl's own, or much would come over the network."""
    running, path = scope.place.running, scope.place.store.path
    own = running.owner == "llmctl" if running else path.is_relative_to(scope.paths.data)
    if own and needed.download_bytes <= CONSENT_BYTES:
        return
    blobs, manifests = len(found.bad_blobs), len(found.bad_manifests)
    consent(
        f"Replace {blobs} bad blobs and {manifests} manifests in {path}"
        + (f", the store of the server at {running.base_url}" if running and running.owner == "foreign" else "")
        + f", with {needed.download_bytes / 1e6:,.0f} MB to download."
    )


def plan(scope: Scope, since_seconds: float | None, progress: Progress) -> RepairResult:
    """What `repair` would do. Nothing is changed."""
    from llmctl.library.repair import planned

    found = checked(scope, since_seconds, progress)
    return repaired(scope, found, found, None, planned(found, scope.pins))


def repaired(
    scope: Scope,
    before: Verification,
    after: Verification,
    mending: Mending | None,
    planned: tuple[Mended, ...] | None = None,
) -> RepairResult:
    mended = planned if planned is not None else tuple(mending.mended) if mending else ()
    return RepairResult(
        store=str(scope.place.store.path),
        why=scope.place.why,
        server=scope.place.running.base_url if scope.place.running else None,
        lock=str(scope.lock_path),
        dry_run=planned is not None,
        good=after.good,
        mended=mended,
        failed=tuple(mending.failed) if mending else (),
        fetched_bytes=sum(each.fetched_bytes or 0 for each in mended),
        models=after.models,
        notes=old_bytes(scope, before),
        remedy=None if after.good else remedy(scope, after),
    )


def old_bytes(scope: Scope, found: Verification) -> tuple[str, ...]:
    """What a runner that loaded a blob before has of it, nobody can mend but a new load."""
    bad = {blob.digest for blob in found.bad_blobs}
    weights = {pin.name: pin.weights_digest for pin in scope.pins}
    return tuple(
        f"{model.name} is loaded: its runner keeps the bytes that it read, until llmctl down and then llmctl up"
        for model in found.models
        if model.loaded and weights[model.name] in bad
    )
