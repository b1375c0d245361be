"""Profiles on disk: those that are shipped, one's own, and which of them is meant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.profile import Profile
from llmctl.errors import LlmctlError, NotFound

if TYPE_CHECKING:
    from llmctl.system.paths import Paths

LARGEST_PROFILE_BYTES = 256 * 1024
SCHEMA_FILE = "profile.schema.json"


Kind = Literal["profiles", "systemd"]
KINDS: tuple[Kind, ...] = ("profiles", "systemd")


def data_folder(kind: Kind) -> Path:
    """The folder of files that are shipped with llmctl: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "_data" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise LlmctlError(f"llmctl's own {kind} folder is missing from {package}", "install llmctl again")


def shipped_names() -> list[str]:
    """The names of the shipped profiles, sorted."""
    return sorted(path.stem for path in data_folder("profiles").glob("*.yaml"))


def shipped_path(name: str) -> Path:
    """The file of a shipped profile. NotFound names the nearest one."""
    names = shipped_names()
    if name not in names:
        import difflib

        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise NotFound(f"no shipped profile is called {name!r}{meant}", "llmctl profiles")
    return data_folder("profiles") / f"{name}.yaml"


def load_shipped(name: str) -> Profile:
    """A shipped profile by name."""
    return replace(load_profile(shipped_path(name)), shipped=True)


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """The profile in a file, `source` paths made absolute.

    Raises NotFound, InvalidProfile with every problem, or LlmctlError where the file cannot be read.
    """
    from llmctl.core.validate import parse_profile
    from llmctl.system.files import read_bounded
    from llmctl.system.yaml_file import parse_yaml

    place = Path(_home(path)).absolute()
    document = parse_yaml(read_bounded(place, LARGEST_PROFILE_BYTES), str(place))
    profile = parse_profile(document.data, document.lines, str(place))
    models = tuple(replace(model, source=_absolute(model.source, place.parent)) for model in profile.models)
    return replace(profile, path=str(place), models=models)


def written_lines(path: str | os.PathLike[str]) -> dict[str, int]:
    """The keys that a profile's file writes out, as `server.port`, each with its line."""
    from llmctl.core.kinds import dotted
    from llmctl.system.files import read_bounded
    from llmctl.system.yaml_file import parse_yaml

    document = parse_yaml(read_bounded(path, LARGEST_PROFILE_BYTES), os.fspath(path))
    return {dotted(place): line for place, line in document.lines.items()}


def _absolute(source: str, folder: Path) -> str:
    if source in {"registry", "starter"}:
        return source
    return os.path.normpath(folder / _home(source))


def _home(path: str | os.PathLike[str]) -> str:
    """`~` spelled out. Unlike Path.expanduser this never raises: without a home the path stays as it is."""
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111


def load(ref: str) -> Profile:
    """The profile that a person names: a file if `ref` looks like one, else a shipped profile."""
    return load_profile(ref) if is_path(ref) else load_shipped(ref)


def is_path(ref: str) -> bool:
    """Whether a reference names a file rather than a shipped profile."""
    return "/" in ref or ref.endswith((".yaml", ".yml"))


def resolve(ref: str | None, paths: Paths, environ: Mapping[str, str], active: str | None) -> Profile | None:
    """The profile in force: `ref` (a flag), LLMCTL_PROFILE, the active one, the user's file, the system's.

    None where there is none of these. Raises what `load` raises, naming where the reference came from.
    """
    wanted = reference(ref, paths, environ, active)
    return None if wanted is None else load(wanted[0])


def reference(ref: str | None, paths: Paths, environ: Mapping[str, str], active: str | None) -> tuple[str, str] | None:
    """What names the profile in force, and who says so."""
    named = ((ref, "--profile"), (environ.get("LLMCTL_PROFILE"), "LLMCTL_PROFILE"), (active, "the last up"))
    for value, source in named:
        if value:
            return value, source
    files = ((paths.profile, "the config folder"), (paths.system_profile, "the system's folder"))
    # lexists: a file that cannot be read must be an error, not as if it were not there.
    return next(((str(path), source) for path, source in files if os.path.lexists(path)), None)


def lock_path(profile: Profile, paths: Paths) -> Path:
    """Where the pins of a profile are written: beside one's own, for a shipped one in the config folder."""
    if profile.shipped or profile.path is None:
        return paths.config / f"{profile.name}.lock"
    return Path(profile.path).with_suffix(".lock")
