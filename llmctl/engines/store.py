"""Private engines side by side in one folder, each whole or absent.

An engine grows in a staging folder beside its place. Its marker file is the last thing written there; then the
folder is renamed into place. What has no marker does not exist. One lock per version keeps two installs apart; the
kernel drops it when its holder dies.

`current` is a link to the chosen engine and `previous` one to the engine before it. While an upgrade is not proved, a
note says which links to put back.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmctl.core.engine import Engine, Rule, best
from llmctl.engines.found import is_program
from llmctl.errors import LlmctlError, NotFound
from llmctl.system import files
from llmctl.system.disk import disk_errors

MARKER = "engine.json"
CURRENT = "current"
PREVIOUS = "previous"
UNPROVED = ".unproved.json"
STAGING = ".staging-"


class Store:
    """The engines below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def engines(self) -> list[Engine]:
        """Every whole engine, by name."""
        if not self.folder.is_dir():
            return []
        found = (self.read(prefix) for prefix in sorted(self.folder.iterdir()) if not prefix.is_symlink())
        return [engine for engine in found if engine is not None]

    def read(self, prefix: Path) -> Engine | None:
        """The engine in `prefix`, or None where it is not whole."""
        try:
            marker = json.loads((prefix / MARKER).read_bytes())
            engine = describe(
                prefix, **{key: marker[key] for key in ("version", "origin", "backend", "release_sha256")}
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return engine if is_program(engine.executable) and is_program(engine.runner) else None

    def current(self) -> Engine | None:
        """The engine that was chosen by name, if it is still whole."""
        return self.linked(CURRENT)

    def previous(self) -> Engine | None:
        """The engine before the last upgrade, if it is still whole."""
        return self.linked(PREVIOUS)

    def linked(self, name: str) -> Engine | None:
        link = self.folder / name
        return self.read(link.resolve()) if link.is_symlink() else None

    def of_program(self, executable: Path) -> Engine | None:
        """The engine whose program this is; None for one that does not live here."""
        prefix = executable.resolve().parent.parent
        return self.read(self.folder / prefix.name) if prefix.parent == self.folder.resolve() else None

    def link(self, name: str, engine: str | None) -> None:
        """Point `current` or `previous` at the engine with this folder name, at once; None removes the link."""
        with disk_errors(self.folder):
            if engine is None:
                (self.folder / name).unlink(missing_ok=True)
                return
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=STAGING) as beside:
                link = Path(beside) / name
                link.symlink_to(engine)
                link.replace(self.folder / name)
            sync(self.folder)

    def flip(self, engine: Engine, old: Engine) -> None:
        """Make `engine` the chosen one and `old` the one before. Not proved until `proved` says so."""
        links = {name: self.target(name) for name in (CURRENT, PREVIOUS)}
        files.atomic_write(self.folder / UNPROVED, json.dumps({"schema": 1, "to": engine.name, **links}))
        self.link(PREVIOUS, old.name)
        self.link(CURRENT, engine.name)

    def target(self, name: str) -> str | None:
        """The folder name that a link holds."""
        link = self.folder / name
        return link.readlink().name if link.is_symlink() else None

    def proved(self) -> None:
        """What was flipped stays."""
        with disk_errors(self.folder):
            (self.folder / UNPROVED).unlink(missing_ok=True)

    def undo_flip(self) -> str | None:
        """Put the links back to where they were before a flip that was never proved; the name it flipped to."""
        try:
            note = json.loads(files.read_bounded(self.folder / UNPROVED, 4096))
            to, links = str(note["to"]), {name: note[name] for name in (CURRENT, PREVIOUS)}
        except (LlmctlError, ValueError, KeyError, TypeError):
            return None
        for name, engine in links.items():
            self.link(name, engine)
        self.proved()
        return to

    def choose(self, name: str) -> Engine:
        """Make the engine with this folder name or version the chosen one. Raises NotFound."""
        engines = self.engines()
        named = [engine for engine in engines if engine.name == name]
        matching = named or [engine for engine in engines if engine.version == name]
        if not matching:
            installed = ", ".join(engine.name for engine in engines) or "none"
            raise NotFound(f"no private engine {name}; installed: {installed}", f"llmctl engine install {name}")
        engine = best(matching, Rule(cpu_only_allowed=False)) or matching[0]
        self.link(CURRENT, engine.name)
        return engine

    def forget_choice(self) -> None:
        self.link(CURRENT, None)

    @contextmanager
    def locked(self, version: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the version's lock, with what a killed install left behind removed. Calls `waiting` once if another
        process has it."""
        with files.exclusive(self.folder / f".lock-{version}", waiting):
            self.sweep(version)
            yield

    def sweep(self, version: str) -> None:
        """Remove what an install that was killed left behind. Only under the version's lock."""
        for leftover in self.folder.glob(f"{STAGING}{version}-*"):
            remove_tree(leftover)

    @contextmanager
    def staging(self, version: str) -> Iterator[Path]:
        """A folder on the same file system that is gone afterwards, however that comes about."""
        with disk_errors(self.folder):
            folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{STAGING}{version}-"))
        try:
            yield folder
        finally:
            remove_tree(folder)

    def publish(self, engine: Engine, name: str) -> Engine:
        """Make the staged `engine` the one called `name`: marker, everything on disk, rename."""
        marker = {
            "schema": 1,
            "kind": engine.kind,
            "version": engine.version,
            "origin": engine.origin,
            "backend": engine.backend,
            "release_sha256": engine.release_sha256,
            "machine": platform.machine(),
        }
        final = self.folder / name
        with disk_errors(self.folder):
            sync_tree(engine.prefix)
            staged = engine.prefix / f"{MARKER}.new"
            staged.write_text(json.dumps(marker, indent=2) + "\n")
            sync(staged)
            staged.rename(engine.prefix / MARKER)
            set_aside(final, engine.prefix.parent)
            engine.prefix.rename(final)
            sync(self.folder)
        published = self.read(final)
        if published is None:
            raise LlmctlError(f"{final} vanished while it was installed", f"llmctl engine install {engine.version}")
        return published


def describe(prefix: Path, version: str, origin: str, backend: str, release_sha256: str | None) -> Engine:
    """The engine laid out in `prefix`. Raises ValueError for a marker that this version does not understand."""
    if origin not in ("release", "registry") or backend not in ("cpu", "cuda", "unknown"):
        raise ValueError(f"unknown origin or backend: {origin}, {backend}")
    made = "official release" if origin == "release" else f"built from package registries, {backend}"
    return Engine(
        kind="ollama",
        version=version,
        prefix=prefix,
        executable=prefix / "bin" / "ollama",
        runner=prefix / "lib" / "ollama" / "llama-server",
        origin="release" if origin == "release" else "registry",
        backend="cpu" if backend == "cpu" else "cuda" if backend == "cuda" else "unknown",
        reason=f"private engine {prefix.name} ({made})",
        release_sha256=release_sha256,
    )


def set_aside(final: Path, staging: Path) -> None:
    """A damaged engine makes way; it is removed together with the staging folder."""
    if final.exists():
        final.rename(staging / "replaced")


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """A rename must not reach the disk before the files it makes visible."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(root))


def remove_tree(folder: Path) -> None:
    """Remove what can be removed; the next install tries again."""
    for root, _, _ in os.walk(folder):
        # An archive may carry folders without write permission.
        with suppress(OSError):
            Path(root).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
