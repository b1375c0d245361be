"""Profiles as a person handles them: list them, write a first one, show what is in force and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.errors import LlmctlError, NotFound, Refused
from llmctl.system import files, shipped

if TYPE_CHECKING:
    from llmctl.system.paths import Paths

LONGEST_COPY_BYTES = shipped.LARGEST_PROFILE_BYTES


@dataclass(frozen=True)
class Listed:
    """One profile. `reference` is what `--profile` takes; `problem` says why one's own cannot be used."""

    name: str
    reference: str
    origin: Literal["shipped", "own", "system"]
    active: bool
    description: str
    models: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Profiles:
    """All profiles there are. `active` is None while none was chosen."""

    active: str | None
    chosen_by: str | None
    profiles: tuple[Listed, ...]


@dataclass(frozen=True)
class Initialised:
    """What `init` did. `content` is the profile's text in a dry run, else None."""

    profile: str
    reason: str
    path: str
    state: Literal["written", "replaced", "already so", "dry run"]
    content: str | None = None


def list_profiles(paths: Paths, environ: Mapping[str, str], active: str | None) -> Profiles:
    """Shipped profiles, one's own in the config folder, the system's."""
    chosen = shipped.reference(None, paths, environ, active)
    reference = _canonical(chosen[0]) if chosen else None
    rows = tuple(
        _listed(place, origin, reference)
        for origin, places in _places(paths)
        for place in places
        if os.path.lexists(place)
    )
    return Profiles(reference, chosen[1] if chosen else None, rows)


def _places(paths: Paths) -> Iterator[tuple[Literal["shipped", "own", "system"], list[Path]]]:
    yield "shipped", [shipped.shipped_path(name) for name in shipped.shipped_names()]
    with files.translated("list", paths.config):
        own = sorted(paths.config.glob("*.yaml")) if paths.config.is_dir() else []
    yield "own", own
    yield "system", [paths.system_profile]


def _canonical(reference: str) -> str:
    """A reference as it is listed: a path made absolute, a shipped name as it is."""
    return os.path.abspath(reference) if shipped.is_path(reference) else reference  # noqa: PTH100


def _listed(place: Path, origin: Literal["shipped", "own", "system"], active: str | None) -> Listed:
    reference = place.stem if origin == "shipped" else str(place)
    try:
        profile = shipped.load_profile(place)
    except LlmctlError as error:
        return Listed(place.stem, reference, origin, reference == active, "", problem=error.message)
    names = tuple(model.name for model in profile.models)
    return Listed(profile.name, reference, origin, reference == active, profile.description, names)


def init(name: str, reason: str, paths: Paths, *, force: bool, dry_run: bool) -> Initialised:
    """Write a copy of the shipped profile `name` as the user's own, with the schema that its editor reads.

    The same content twice is "already so". Raises Refused for another profile without `force`.
    """
    path = paths.profile
    content = copy_of(name)
    if dry_run:
        return Initialised(name, reason, str(path), "dry run", content)
    before = _present(path)
    if before == content.encode():
        return Initialised(name, reason, str(path), "already so")
    if before is not None and not force:
        raise Refused(f"{path} is there already, with other content", "llmctl init --force", code="exists")
    schema = shipped.data_folder("profiles") / shipped.SCHEMA_FILE
    files.atomic_write(path.with_name(shipped.SCHEMA_FILE), files.read_bounded(schema, LONGEST_COPY_BYTES))
    files.atomic_write(path, content)
    return Initialised(name, reason, str(path), "written" if before is None else "replaced")


def _present(path: Path) -> bytes | None:
    """What the file holds; None when there is none."""
    try:
        return files.read_bounded(path, LONGEST_COPY_BYTES)
    except NotFound:
        return None


def copy_of(name: str) -> str:
    """A shipped profile's text for a person to change: its comments stay, its origin is said."""
    text = files.read_bounded(shipped.shipped_path(name), LONGEST_COPY_BYTES).decode()
    modeline, _, rest = text.partition("\n")
    note = f"# Copied by `llmctl init` from the shipped profile {name}. It is yours to change from here on."
    return f"{modeline}\n#\n{note}\n{rest}"
