"""repair: what is pinned made right again, in the store that it lies in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.progress import Consent, Progress, Step
from llmctl.errors import DownloadFailed, NotFound, Refused
from llmctl.library import disk
from llmctl.library import repair as repairing
from llmctl.library.obtain import CONSENT_BYTES
from llmctl.library.remade import Maker
from llmctl.library.repair import Mending
from llmctl.system.verified import Verified
from llmctl.workflows.pins import checked, old_bytes, remedy, require_rights

if TYPE_CHECKING:
    from llmctl.library.repair import Mended, Need, NotMended
    from llmctl.library.verify import CheckedModel, Verification
    from llmctl.server import Running
    from llmctl.workflows.pins import Scope


@dataclass(frozen=True)
class RepairResult:
    """What was bad and is right again, and what still is not. In a dry run `mended` is what would be.

    `restart_server`: weights were replaced under a running server, which remembers what it read of them.
    """

    store: str
    why: str
    server: str | None
    lock: str
    dry_run: bool
    good: bool
    mended: tuple[Mended, ...]
    failed: tuple[NotMended, ...]
    fetched_bytes: int
    restart_server: bool
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
    started = time.time()
    found = checked(scope, since_seconds, progress)
    if not (found.bad_blobs or found.bad_manifests):
        return repaired(scope, found, found, None)
    store = scope.place.store
    require_rights("repair", store.path, scope.profile, scope.paths, write=True)
    needed = repairing.need(found, scope.pins, store)
    ask(scope, found, needed, consent)
    with store.changing(lambda: progress(Step("store", "store", detail="another llmctl is changing it"))):
        disk.require_room(store.path, needed.write_bytes, "the repair")
        mending = Mending(store, scope.pins, maker(scope, environ, progress), Verified(scope.paths.state, store.path))
        mending.run(found)
    # What was hashed in this run, and on the way here, counts.
    age_seconds = max(since_seconds or 0.0, time.time() - started + 1.0)
    after = checked(scope, age_seconds, lambda _: None)
    failure = next((error for error in mending.errors if not isinstance(error, Refused)), None)
    if isinstance(failure, NotFound):
        # What is not found is not what was asked for, but what a source lacks.
        raise DownloadFailed(failure.message, failure.hint, code=failure.code) from failure
    if failure is not None:
        raise failure
    return repaired(scope, found, after, mending)


def maker(scope: Scope, environ: Mapping[str, str], progress: Progress) -> Maker:
    version = scope.place.running.version if scope.place.running else ""
    return Maker(
        scope.client, version, scope.paths, environ, progress, f"{scope.paths.llmctl} up {scope.profile.reference}"
    )


def ask(scope: Scope, found: Verification, needed: Need, consent: Consent) -> None:
    """Consent where the store is not llmctl's own, or much would come over the network."""
    running, path = scope.place.running, scope.place.store.path
    own = running.owner == "llmctl" if running else path.is_relative_to(scope.paths.data)
    if own and needed.download_bytes <= CONSENT_BYTES:
        return
    parts = [counted(len(found.bad_blobs), "blob"), counted(len(found.bad_manifests), "manifest")]
    consent(
        f"Replace {' and '.join(part for part in parts if part)} in {path}"
        + (f", the store of the server at {running.base_url}" if running and running.owner == "foreign" else "")
        + f", with {needed.download_bytes / 1e6:,.0f} MB to download."
    )


def plan(scope: Scope, since_seconds: float | None, progress: Progress) -> RepairResult:
    """What `repair` would do. Nothing is changed."""
    found = checked(scope, since_seconds, progress)
    return repaired(scope, found, found, None, repairing.planned(found, scope.pins))


def repaired(
    scope: Scope,
    before: Verification,
    after: Verification,
    mending: Mending | None,
    planned: tuple[Mended, ...] | None = None,
) -> RepairResult:
    mended = planned if planned is not None else tuple(mending.mended) if mending else ()
    running = scope.place.running
    remembers = running if mending is not None and weights_replaced(scope, before, after) else None
    return RepairResult(
        store=str(scope.place.store.path),
        why=scope.place.why,
        server=running.base_url if running else None,
        lock=str(scope.lock_path),
        dry_run=planned is not None,
        good=after.good,
        mended=mended,
        failed=tuple(mending.failed) if mending else (),
        fetched_bytes=sum(each.fetched_bytes or 0 for each in mended),
        restart_server=remembers is not None,
        models=after.models,
        notes=(*after.notes, *old_bytes(scope, before), *([start_anew(scope, remembers)] if remembers else [])),
        remedy=None if after.good else remedy(scope, after),
    )


def weights_replaced(scope: Scope, before: Verification, after: Verification) -> bool:
    """Whether weights that could be read were others, and are right now."""
    weights = {pin.weights_digest for pin in scope.pins}
    bad = {blob.digest for blob in before.bad_blobs if blob.problem != "missing"}
    return bool(weights & bad - {blob.digest for blob in after.bad_blobs})


def start_anew(scope: Scope, running: Running) -> str:
    """Ollama 0.34.0 reads the head of a file once: what it found to be damaged it refuses until it ends."""
    how = f"{scope.paths.llmctl} down, then {scope.paths.llmctl} up starts it anew"
    if running.owner == "foreign":
        how = "start it anew, the way it was started"
    return f"the server at {running.base_url} remembers what it read of the old weights: {how}"


def counted(count: int, noun: str) -> str:
    """`1 blob`, `2 blobs`; nothing for none."""
    return f"{count} {noun}{'s' if count != 1 else ''}" if count else ""
