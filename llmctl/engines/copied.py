"""An engine from elsewhere on this machine, copied among those of the service."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from llmctl.core.engine import Engine
from llmctl.engines.store import Store
from llmctl.system.disk import disk_errors, require_free


def copy(engine: Engine, store: Store) -> Engine:
    """Copy the programs and libraries of `engine` into `store` and make it the one in use."""
    with store.locked(engine.version, lambda: None), store.staging(engine.version) as staging:
        parts = [(engine.executable.parent, "bin", {"ollama"}), (engine.runner.parent, "lib/ollama", None)]
        require_free(staging, sum(size_below(folder) for folder, _, _ in parts[1:]), "copying the engine")
        with disk_errors(staging):
            for folder, name, only in parts:
                copy_part(folder, staging / "engine" / name, only)
        known = Store(engine.prefix.parent).read(engine.prefix) or engine
        origin = known.origin if known.origin in ("release", "registry") else "release"
        staged = replace(known, prefix=staging / "engine", origin=origin)
        published = store.publish(staged, f"{engine.version}-{known.backend}")
    return store.choose(published.name)


def copy_part(folder: Path, target: Path, only: set[str] | None) -> None:
    """A folder, or some files of it, readable by all. A link inside it stays one."""

    def others(_: str, names: list[str]) -> set[str]:
        return set() if only is None else set(names) - only

    shutil.copytree(folder, target, symlinks=True, ignore=others)
    for root, _, names in os.walk(target):
        for path in (Path(root), *(Path(root, name) for name in names)):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)


def size_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
