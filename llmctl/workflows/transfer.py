"""export, import, push: pinned models to another machine and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.pin import name_key
from llmctl.core.profile import ModelSpec
from llmctl.core.progress import Step
from llmctl.errors import UsageError
from llmctl.library import exported, imported, lock_file, usage
from llmctl.library.disk import MARGIN_BYTES, require_room
from llmctl.library.obtain import CONSENT_BYTES
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from llmctl.core.pin import Lock
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Consent, Progress, StepState
    from llmctl.library.exported import ExportedModel
    from llmctl.library.imported import ImportedModel
    from llmctl.system import image_archive
    from llmctl.system.copying import Write
    from llmctl.workflows.store import Place

PIPE = "-"


@dataclass(frozen=True)
class ExportResult:
    """What was written where; `file` is `-` for stdout."""

    file: str
    size_bytes: int
    store: str
    models: tuple[ExportedModel, ...]


@dataclass(frozen=True)
class ImportResult:
    """What came. `written_bytes` are the blobs that the store had not got, `present_bytes` those it had, hashed.

    With `dry_run` nothing was written and no blob was hashed. `ignored` are members that belong to no model.
    """

    file: str
    store: str
    why: str
    dry_run: bool
    written_bytes: int
    present_bytes: int
    models: tuple[ImportedModel, ...]
    ignored: tuple[str, ...]
    lock: str


def export(
    names: list[str], target: Path, lock: Lock, place: Place, *, force: bool, progress: Progress
) -> ExportResult:
    """Write the archive `target`: as a whole, or not at all."""
    from llmctl.system.copying import whole_file, writer
    from llmctl.system.disk import require_free
    from llmctl.system.files import translated

    target = target.expanduser().absolute()
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no regular file; only a file is written or replaced", "to stdout: -o -")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", "the same command with --force replaces it", code="file_exists")
    plan = exported.plan(names, lock, place.store)
    if target.parent.is_dir():
        require_free(target.parent, plan.size_bytes + MARGIN_BYTES, str(target))
    with whole_file(target) as descriptor:
        write = writer(descriptor)

        def out(piece: memoryview) -> None:
            with translated("write", target):
                write(piece)

        exported.write(plan, place.store, out, counted(progress, "export", str(target), plan.size_bytes))
    progress(Step("export", "export", "done", str(target)))
    return ExportResult(str(target), plan.size_bytes, str(place.store.path), plan.shown)


def export_to(write: Write, names: list[str], lock: Lock, place: Place, *, progress: Progress) -> ExportResult:
    """The archive through a pipe. A bad blob ends it early, and what was written is no whole archive."""
    plan = exported.plan(names, lock, place.store)
    exported.write(plan, place.store, write, counted(progress, "export", "stdout", plan.size_bytes))
    progress(Step("export", "export", "done", "stdout"))
    return ExportResult(PIPE, plan.size_bytes, str(place.store.path), plan.shown)


@dataclass(frozen=True)
class Import:
    """One run of `import`: from where, into what, under which rules."""

    source: str
    name: str | None
    quantization: str | None
    update: bool
    dry_run: bool
    profile: Profile
    place: Place
    lock_path: Path
    state: Path
    progress: Progress
    consent: Consent

    def run(self) -> ImportResult:
        """Everything is checked before anything is visible; a second run goes on with the blobs that are there."""
        from llmctl.system.image_archive import opened

        path = None if self.source == PIPE else Path(self.source).expanduser().absolute()
        with opened(path) as archive:
            if self.dry_run:
                return self.result(archive, self.plan(archive), ())
            with stores.turn(self.place.store, self.waiting, self.consent) as ask:
                return self.bring(archive, ask)

    def bring(self, archive: image_archive.Archive, ask: Consent) -> ImportResult:
        store = self.place.store
        plan = self.plan(archive)
        here_bytes = sum(plan.sizes[digest] for digest in plan.here)
        if here_bytes:
            plan = imported.hashed_here(plan, store, self.counted("hashing what is there", here_bytes))
        require_room(store.path, plan.missing_bytes, self.source)
        if plan.missing_bytes > CONSENT_BYTES:
            ask(f"Write {plan.missing_bytes / 1e6:,.0f} MB into {store.path} ({self.place.why}).")
        imported.fetch(archive, plan, store, self.counted("copying and hashing", plan.missing_bytes))
        done = imported.finish(plan, store)
        before = {each.pin.name: each.before for each in plan.coming}

        def edit(lock: Lock) -> Lock:
            for pin, _ in done:
                lock = lock.repinned(before[pin.name], pin)
            return lock

        usage.change(self.state, self.lock_path, edit)
        result = self.result(archive, plan, tuple(shown for _, shown in done))
        self.tell("done", f"{len(done)} models")
        return result

    def plan(self, archive: image_archive.Archive) -> imported.Plan:
        draft = imported.Draft(
            wanted=self.wanted,
            engine=self.place.running.version if self.place.running else "unknown",
            now=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            source=f"archive {Path(self.source).name}" if self.source != PIPE else "archive",
        )
        lock = lock_file.read(self.lock_path)
        return imported.plan(archive, lock, self.place.store, draft, name=self.name, update=self.update)

    def wanted(self, name: str) -> str:
        """The quantization that a model of this name must have."""
        key = name_key(name)
        spec = next((model for model in self.profile.models if name_key(model.name) == key), ModelSpec(name))
        return self.quantization or spec.quantization

    def result(
        self, archive: image_archive.Archive, plan: imported.Plan, models: tuple[ImportedModel, ...]
    ) -> ImportResult:
        from llmctl.system.image_archive import other_members

        store = self.place.store
        return ImportResult(
            file=self.source,
            store=str(store.path),
            why=self.place.why,
            dry_run=self.dry_run,
            written_bytes=plan.missing_bytes,
            present_bytes=sum(plan.sizes.values()) - plan.missing_bytes,
            models=models or tuple(imported.shown(each, imported.plain_name(each, store)) for each in plan.coming),
            ignored=other_members(archive, plan.known),
            lock=str(self.lock_path),
        )

    def waiting(self) -> None:
        self.tell("running", f"waiting for another llmctl that changes {self.place.store.path}")

    def counted(self, detail: str, total_bytes: int) -> Callable[[int], None]:
        return counted(self.progress, "import", detail, total_bytes)

    def tell(self, state: StepState, detail: str) -> None:
        self.progress(Step("import", "import", state, detail))


def counted(progress: Progress, title: str, detail: str, total_bytes: int) -> Callable[[int], None]:
    """Hears the sizes of pieces and says how far it is."""
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        progress(Step(title, title, "running", detail, done, total_bytes))

    return on_bytes
