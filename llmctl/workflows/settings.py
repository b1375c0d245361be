"""Every folder, file and setting that llmctl uses, its value, and who decided it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.profile import GpuSpec
from llmctl.core.schema import ENGINE, GATEWAY, GPU, MODEL, SERVER
from llmctl.core.size import write_size
from llmctl.system import shipped

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.server import Server
    from llmctl.system.paths import Paths

Value = str | int | bool | tuple[int, ...] | None
SECTIONS = {"engine": ENGINE, "server": SERVER, "gpu": GPU, "gateway": GATEWAY}

XDG = {"config": "XDG_CONFIG_HOME", "data": "XDG_DATA_HOME", "state": "XDG_STATE_HOME", "cache": "XDG_CACHE_HOME"}


@dataclass(frozen=True)
class Setting:
    """One setting. `source` names a flag, an environment variable, a line of the profile, or "default"."""

    name: str
    value: Value
    source: str


@dataclass(frozen=True)
class Settings:
    """What is in force. `profile` is what `--profile` would take."""

    profile: str
    folders: tuple[Setting, ...]
    files: tuple[Setting, ...]
    settings: tuple[Setting, ...]


def settings(profile: Profile, chosen_by: str, paths: Paths, environ: Mapping[str, str], server: Server) -> Settings:
    """The settings in force under `profile`; `chosen_by` says who chose it."""
    return Settings(
        profile=profile.reference,
        folders=tuple(_folders(paths, environ)),
        files=tuple(_files(profile, chosen_by, paths, environ, server)),
        settings=(*_address(profile, server), *_keys(profile)),
    )


def _folders(paths: Paths, environ: Mapping[str, str]) -> Iterator[Setting]:
    for name in ("config", "data", "state", "cache"):
        variables = (f"LLMCTL_{name.upper()}_DIR", XDG[name])
        yield Setting(name, str(getattr(paths, name)), _variable(environ, *variables))
    yield Setting("engines", str(paths.engines), _variable(environ, "LLMCTL_ENGINES_DIR", "LLMCTL_DATA_DIR"))


def _variable(environ: Mapping[str, str], *names: str) -> str:
    return next((name for name in names if environ.get(name)), "default")


def _files(
    profile: Profile, chosen_by: str, paths: Paths, environ: Mapping[str, str], server: Server
) -> Iterator[Setting]:
    yield Setting("profile", profile.path, chosen_by)
    yield Setting("lock", str(shipped.lock_path(profile, paths)), "the profile")
    yield Setting("state", str(paths.state_file), "the state folder")
    yield Setting("server_log", str(paths.server_log), "the state folder")
    store = "private profile" if profile.private else _variable(environ, "OLLAMA_MODELS")
    yield Setting("models", str(server.store(profile)), store)
    yield Setting("engine", environ.get("LLMCTL_ENGINE"), _variable(environ, "LLMCTL_ENGINE"))


def _address(profile: Profile, server: Server) -> Iterator[Setting]:
    address = server.address(profile)
    # A free port is another one each time it is asked for.
    free = address.origin == "free port"
    yield Setting("address", None if free else address.url, "a free port, chosen by up" if free else address.origin)


def _keys(profile: Profile) -> Iterator[Setting]:
    """Each key of the profile, in the order of its schema."""
    written = shipped.written_lines(profile.path) if profile.path else {}

    def setting(name: str, value: Value) -> Setting:
        line = written.get(name)
        return Setting(name, value, f"profile, line {line}" if line else "default")

    yield setting("private", profile.private)
    for section, known in SECTIONS.items():
        for key in known.keys:
            yield setting(f"{section}.{key}", _value(getattr(profile, section), key))
    for index, model in enumerate(profile.models):
        for key in MODEL.keys:
            yield setting(f"models[{index}].{key}", _value(model, key))


def _value(spec: object, key: str) -> Value:
    if isinstance(spec, GpuSpec) and key == "reserve":
        return write_size(spec.reserve_bytes)
    value: Value = getattr(spec, key)
    return value
