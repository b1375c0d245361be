"""What may go from a store: aliases that no lock pins, blobs that no manifest names, what broke off long ago.

Whatever cannot be known keeps what it may concern. Nothing younger than an hour goes: a pull writes its blobs
long before the manifest that names them, and Ollama itself waits as long (v0.34.0 server/images.go:40).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.model import ModelRef
from llmctl.library.inventory import Installed, family_of, from_store

if TYPE_CHECKING:
    from llmctl.library.usage import KnownLock
    from llmctl.system.store import Store, StoredFile

GRACE_SECONDS = 3600.0
# Others may publish in the namespace `llmctl` of the public registry; these are the names that llmctl makes.
_MADE_HERE = re.compile(r"llmctl/[^/:]+:([0-9a-f]{12}(-c[0-9]+)?|staged)", re.IGNORECASE)

Kind = Literal["blob", "unfinished", "scratch"]


@dataclass(frozen=True)
class PrunedFile:
    """One file that goes. `disk_bytes` is what comes free: 0 where another hard link keeps the bytes."""

    path: str
    kind: Kind
    size_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """What would go now, and in sentences what stays and why."""

    aliases: tuple[str, ...] = ()
    files: tuple[PrunedFile, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        return sum(file.disk_bytes for file in self.files)

    def both(self, other: Plan) -> Plan:
        """What goes by both plans: nobody agreed to more than the first, and the second knows better."""
        paths = {file.path for file in other.files}
        return Plan(
            tuple(alias for alias in self.aliases if alias in other.aliases),
            tuple(file for file in self.files if file.path in paths),
            other.notes,
        )


@dataclass
class _Survey:
    """A store as it lies there, and what is known of its users."""

    store: Store
    locks: tuple[KnownLock, ...]
    loaded: frozenset[str]
    now: float
    installed: tuple[Installed, ...] = ()
    files: tuple[StoredFile, ...] = ()
    notes: list[str] = field(default_factory=list)

    def young(self, modified_seconds: float) -> bool:
        return self.now - modified_seconds < GRACE_SECONDS


def plan(store: Store, locks: Iterable[KnownLock], loaded: Iterable[str], now: float, blind: str | None = None) -> Plan:
    """What may go. `loaded` are the manifests in /api/ps; `blind` says why the locks here are not all.

    Raises LlmctlError where the store cannot be read.
    """
    survey = _Survey(store, tuple(locks), frozenset(loaded), now, from_store(store), tuple(store.files()))
    scratch = [file for file in store.scratch_files() if not survey.young(file.modified_seconds)]
    files = [_pruned(file, "scratch") for file in scratch]
    damaged = [each for each in survey.installed if each.damaged]
    if (busy := _busy(survey, _named(survey.installed))) is not None:
        return Plan((), tuple(files), (busy,))
    files += [_pruned(file, "unfinished") for file in survey.files if file.partial]
    if damaged:
        names = ", ".join(each.name for each in damaged[:3]) + (" and others" if len(damaged) > 3 else "")
        survey.notes.append(
            f"the manifest of {names} cannot be read, and may name any blob: blobs and aliases stay; "
            f"mend it with llmctl repair or llmctl pull, or remove it: {damaged[0].path}"
        )
        return Plan((), tuple(files), tuple(survey.notes))
    aliases = tuple(_aliases(survey, blind))
    pins = [pin for lock in survey.locks for pin in lock.pins]
    # A lock that was made without sight of the store names the weights and no layers.
    pinned = {layer.digest for pin in pins for layer in pin.blobs} | {pin.weights_digest for pin in pins}
    left = _named(each for each in survey.installed if each.name not in aliases) | pinned
    files += [_pruned(file, "blob") for file in _loose(survey, left)]
    return Plan(aliases, tuple(files), tuple(survey.notes))


def _named(installed: Iterable[Installed]) -> set[str]:
    return {layer.digest for each in installed if each.manifest for layer in each.manifest.blobs}


def _busy(survey: _Survey, named: set[str]) -> str | None:
    """Why something may be arriving here just now."""
    for file in survey.files:
        loose = file.partial or (file.digest is not None and file.digest not in named)
        if loose and survey.young(file.modified_seconds):
            minutes = max(0, int((survey.now - file.modified_seconds) / 60))
            return (
                f"{file.path.name} changed {minutes} min ago and belongs to no model yet: something may be "
                "downloading, so blobs and aliases stay; try again when an hour has passed"
            )
    return None


def _loose(survey: _Survey, named: set[str]) -> Iterator[StoredFile]:
    links = 0
    for file in survey.files:
        if file.partial or file.digest is None or file.digest in named:
            continue
        if file.path.is_symlink():
            links += 1
            continue
        yield file
    if links:
        survey.notes.append(
            f"{links} blobs that no manifest names are symlinks, and stay: others may use their targets"
        )


def _aliases(survey: _Survey, blind: str | None) -> Iterator[str]:
    """The aliases that nothing pins, each that stays for another reason noted."""
    pinned = {pin.alias.lower() for lock in survey.locks for pin in lock.pins}
    candidates = [
        each for each in survey.installed if _MADE_HERE.fullmatch(each.name) and family_of(each.name) not in pinned
    ]
    if not candidates:
        return
    if blind is not None:
        survey.notes.append(blind)
        return
    weights = {each.weights_digest for each in survey.installed if each.digest in survey.loaded} - {None}
    unknown = [lock for lock in survey.locks if lock.unknown]
    for lock in unknown:
        what = "its aliases stay" if lock.aliases is not None else "all aliases stay"
        forget = f"; if it is gone for good: rm {lock.note}" if lock.note else ""
        survey.notes.append(f"{lock.unknown}, so what it pins cannot be known: {what}{forget}")
    if any(lock.aliases is None for lock in unknown):
        return
    remembered = {alias.lower() for lock in unknown for alias in lock.aliases or ()}
    for each in candidates:
        if family_of(each.name) in remembered:
            continue
        if each.weights_digest in weights or each.digest in survey.loaded:
            survey.notes.append(f"{each.name} is loaded and stays")
        elif each.path is not None and survey.young(os.stat(each.path).st_mtime):  # noqa: PTH116
            survey.notes.append(f"{each.name} was made less than an hour ago and stays")
        else:
            yield each.name


def _pruned(file: StoredFile, kind: Kind) -> PrunedFile:
    try:
        shared = file.path.lstat().st_nlink > 1
    except OSError:
        shared = False
    return PrunedFile(str(file.path), kind, file.size_bytes, 0 if shared else file.disk_bytes)


def carry_out(store: Store, plan: Plan, now: float) -> None:
    """Remove from the disk what `plan` says; the caller holds `store.changing`. Root acts as the store's owner, who
    may have planted links.

    A blob is first put aside, then the store is looked at once more: a foreign pull that found the blob here may
    have named it meanwhile, or be about to, and gets it back.
    """
    from llmctl.system.files import as_owner, translated

    with as_owner(store.blobs_folder):
        for alias in plan.aliases:
            store.remove_manifest(ModelRef.parse(alias))
        aside: dict[Path, Path] = {}
        for file in plan.files:
            path = Path(file.path)
            with translated("remove", path):
                if file.kind == "blob":
                    aside[path] = store.make_scratch() / f"pruned-{path.name}"
                    path.rename(aside[path])
                else:
                    path.unlink(missing_ok=True)
        if aside:
            _decide(store, aside, now)


def _decide(store: Store, aside: dict[Path, Path], now: float) -> None:
    """Each blob that was put aside goes back or goes, by what the store says now."""
    from llmctl.system.files import translated

    survey = _Survey(store, (), frozenset(), now, from_store(store), tuple(store.files()))
    digests = _named(survey.installed)
    named = {digest.replace(":", "-") for digest in digests}
    doubt = any(each.damaged for each in survey.installed) or _busy(survey, digests) is not None
    for path, kept in aside.items():
        with translated("remove", path):
            if (doubt or path.name in named) and not path.exists():
                kept.rename(path)
            else:
                kept.unlink(missing_ok=True)


def gone(plan: Plan, names: Callable[[], Iterable[str]]) -> Plan:
    """The part of a plan that came true; `names` are those that the store has now."""
    left = {name.lower() for name in names()}
    return Plan(
        tuple(alias for alias in plan.aliases if alias.lower() not in left),
        tuple(file for file in plan.files if not os.path.lexists(file.path)),
        plan.notes,
    )
