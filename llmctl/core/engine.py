"""What an engine is, which versions will do, and which one of several is taken. Decisions only.

Versions: llmctl needs Ollama 0.30 or newer (from there on one `llama-server` per model does the work). A profile
that names a version gets exactly that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Origin = Literal["path", "configured", "release", "registry"]
Backend = Literal["cpu", "cuda", "unknown"]
VersionKey = tuple[int, int, int, int]

MINIMUM_VERSION = "0.30.0"
DEFAULT_VERSION = "0.34.0"
# What helps where a server that is not llmctl's has another version than the profile asks for.
WITHOUT_VERSION = "set server.port in the profile to another port, or remove engine.version"

VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(-\S+)?")
PRE_RELEASE = re.compile(r"-(alpha|beta|rc)", re.IGNORECASE)
CLIENT_VERSION = re.compile(r"client version is v?(\S+)")
ANY_VERSION = re.compile(r"version is v?(\S+)")
SHA256_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(\S+)")

# platform.machine() -> the word in the release's file names (ollama .github/workflows/release.yaml).
RELEASE_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
BACKEND_RANK: dict[Backend, int] = {"cuda": 2, "unknown": 1, "cpu": 0}


@dataclass(frozen=True)
class Engine:
    """A server program that can be started: `executable` is `ollama`, `runner` its `llama-server`.

    `reason` says where it was found and why it is taken. `release_sha256` is the official archive's hash, None for
    anything that did not come from one. `backend` is what a private build was made with; "unknown" where only a
    start would tell.
    """

    kind: str
    version: str
    prefix: Path
    executable: Path
    runner: Path
    origin: Origin
    backend: Backend
    reason: str
    release_sha256: str | None = None

    @property
    def name(self) -> str:
        """What `llmctl engine use` takes: a private engine's folder, else the version."""
        return self.prefix.name if self.origin in ("release", "registry") else self.version


@dataclass(frozen=True)
class Overview:
    """The engines of a machine. `in_use` is what the next start takes; `passed_over` says why others are not."""

    engines: tuple[Engine, ...]
    in_use: Engine | None
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """What an engine must satisfy: an exact version, and the archive's hash where the lock records one."""

    version: str | None = None
    release_sha256: str | None = None
    cpu_only_allowed: bool = True


def version_key(text: str) -> VersionKey | None:
    """A version as something that compares, a pre-release below its release; None for what is no version.

    What else stands behind a hyphen is a packager's number or `git describe`, of the release or what follows it.
    """
    match = VERSION.fullmatch(text.strip())
    if match is None:
        return None
    major, minor, patch, suffix = match.groups()
    return int(major), int(minor), int(patch), 0 if suffix and PRE_RELEASE.match(suffix) else 1


def normal_version(text: str) -> str | None:
    """`v0.34.0` and ` 0.34.0` as `0.34.0`; None for what is no version."""
    text = text.strip()
    return text.removeprefix("v") if version_key(text) else None


def is_new_enough(version: str) -> bool:
    key, minimum = version_key(version), version_key(MINIMUM_VERSION)
    return key is not None and minimum is not None and key >= minimum


def version_in(output: str) -> str | None:
    """The program's own version in what `ollama --version` prints.

    Without a server it warns and says `client version is X`; with one it says `ollama version is X` of the server,
    and adds the client's only where it differs (ollama v0.34.0 cmd/cmd.go, versionHandler).
    """
    match = CLIENT_VERSION.search(output) or ANY_VERSION.search(output)
    return normal_version(match.group(1)) if match else None


def objection(engine: Engine, rule: Rule) -> str | None:
    """Why `engine` may not be used under `rule`, or None."""
    if rule.version is not None and engine.version != rule.version:
        return f"is {engine.version}, {rule.version} is asked for"
    if not is_new_enough(engine.version):
        return f"is {engine.version}, older than {MINIMUM_VERSION.removesuffix('.0')}"
    if engine.origin == "release" and rule.release_sha256 not in (None, engine.release_sha256):
        return "comes from another archive than the one in the lock"
    return None


def best(engines: Iterable[Engine], rule: Rule) -> Engine | None:
    """The private engine to take: one with a GPU backend before a CPU-only one unless that is allowed, then the
    newest, then the official release before a build."""

    def rank(engine: Engine) -> tuple[bool, VersionKey, bool, int]:
        key = version_key(engine.version) or (0, 0, 0, 0)
        no_gpu = engine.backend == "cpu" and not rule.cpu_only_allowed
        return not no_gpu, key, engine.origin == "release", BACKEND_RANK[engine.backend]

    return max((engine for engine in engines if objection(engine, rule) is None), key=rank, default=None)


def release_asset(machine: str) -> str | None:
    """The official archive's file name for this machine, or None where there is none."""
    word = RELEASE_MACHINES.get(machine)
    return f"ollama-linux-{word}.tar.zst" if word else None


def parse_sha256sums(text: str) -> Mapping[str, str]:
    """File name -> hash, of a `sha256sum.txt` whose lines are `<hash>  ./<file>`; other lines are ignored."""
    matches = (SHA256_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match.group(2): match.group(1).lower() for match in matches if match}
