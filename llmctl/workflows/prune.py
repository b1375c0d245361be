"""prune: what no pin, no model and no download needs any more goes from a store, after it was shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.changes import size_words
from llmctl.core.progress import Step
from llmctl.errors import LlmctlError
from llmctl.library import prune as pruning
from llmctl.library import usage
from llmctl.library.prune import Plan, PrunedFile
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Consent, Progress
    from llmctl.server import Server


@dataclass(frozen=True)
class PruneResult:
    """What went, or in a dry run would go. `freed_bytes` are blocks of the disk; `notes` say what stays and why.

    `remedy` is the command with the rights that this user lacks, where something is left for that.
    """

    store: str
    why: str
    dry_run: bool
    aliases: tuple[str, ...]
    files: tuple[PrunedFile, ...]
    freed_bytes: int
    notes: tuple[str, ...]
    remedy: str | None

    @property
    def empty(self) -> bool:
        return not self.aliases and not self.files


@dataclass(frozen=True)
class Prune:
    """One run: the store, its server where one runs, and the locks that pin something."""

    server: Server
    profile: Profile
    place: stores.Place
    client: Client | None
    more_locks: tuple[Path, ...]

    def plan(self) -> Plan:
        """What may go now."""
        paths, store = self.server.paths, self.place.store
        locks = usage.known_locks(paths.state, [*self.more_locks, *paths.config.glob("*.lock")])
        loaded = self.loaded()
        blind = self.blind() or ("the server does not say what is loaded: all aliases stay" if loaded is None else None)
        try:
            return pruning.plan(store, locks, loaded or (), time.time(), blind)
        except LlmctlError as error:
            if error.code != "permission_denied":
                raise
            raise LlmctlError(error.message, self.as_root(), code=error.code) from None

    def run(self, shown: Plan, consent: Consent, progress: Progress) -> PruneResult:
        """Remove what is agreed to, if it may still go then."""
        consent(self.question(shown))
        with self.place.store.changing(lambda: progress(Step("wait", "wait", detail="another llmctl is changing it"))):
            agreed = shown.both(self.plan())
            self.remove(agreed)
        came_true = pruning.gone(agreed, lambda: map(str, self.place.store.names()))
        return self.result(came_true, dry_run=False, left=came_true != agreed)

    def remove(self, agreed: Plan) -> None:
        if self.writable:
            pruning.carry_out(self.place.store, agreed, time.time())
        elif self.client is not None:
            # The server deletes the blobs that nothing names any more together with the alias.
            for alias in agreed.aliases:
                self.client.delete(alias)

    def result(self, plan: Plan, *, dry_run: bool, left: bool = False) -> PruneResult:
        beyond = not self.writable and (left or (dry_run and bool(plan.files)))
        return PruneResult(
            store=str(self.place.store.path),
            why=self.place.why,
            dry_run=dry_run,
            aliases=plan.aliases,
            files=plan.files,
            freed_bytes=plan.freed_bytes,
            notes=plan.notes,
            remedy=self.as_root() if beyond else None,
        )

    @property
    def writable(self) -> bool:
        """Whether this user may remove files here."""
        store = self.place.store
        folders = (store.path, store.blobs_folder, store.path / "manifests")
        return all(os.access(folder, os.W_OK | os.X_OK) for folder in folders if os.path.lexists(folder))

    def loaded(self) -> list[str] | None:
        """The manifests in memory; None where a server runs and does not tell."""
        try:
            return [model.digest for model in self.client.ps()] if self.client else []
        except LlmctlError:
            return None

    def blind(self) -> str | None:
        """Why the locks that this process sees are not those of the person who typed the command."""
        caller = self.server.environ.get("SUDO_UID", "0")
        if os.geteuid() != 0 or caller == "0" or "LLMCTL_STATE_DIR" in self.server.environ:
            return None
        return f"under sudo the locks of user {caller} are not seen, so all aliases stay; prune them without sudo"

    def question(self, plan: Plan) -> str:
        parts = [counted(len(plan.aliases), "alias", "aliases"), counted(len(plan.files), "file", "files")]
        store = self.place.store.path
        shared = ""
        if plan.aliases and store.exists() and store.stat().st_uid != os.geteuid():
            shared = " What other users of this machine pin is not known here."
        removed = " and ".join(part for part in parts if part)
        return f"Remove {removed} from {store}, {size_words(plan.freed_bytes)}.{shared}"

    def as_root(self) -> str:
        return stores.as_root("prune", self.place.store.path, self.profile, self.server.paths)


def counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}" if number else ""


def prepare(
    server: Server,
    profile: Profile,
    lock_path: Path,
    client: Callable[[str], Client],
    given: Path | None,
) -> Prune:
    place = stores.place(server, profile, given)
    return Prune(server, profile, place, client(place.running.base_url) if place.running else None, (lock_path,))
