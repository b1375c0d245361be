"""Two real engines in a folder of the test's own, and ways to break one of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.conftest import Llmctl, llmctl, prepared, ready
from tests.parts import engine as engine_part

__all__ = ["llmctl", "prepared", "ready"]

OLD, NEW = "0.33.0", "0.34.0"

# The stand-ins below are scripts around the real programs, which lie beside them.
SCRIPT = '#!/bin/bash\n{before}exec -a "$0" "$0.real" "$@"{after}\n'


def linked(source: str, target: str) -> object:
    try:
        return os.link(source, target)
    except OSError:
        return shutil.copy2(source, target)


@dataclass(frozen=True)
class EnginesFolder:
    """llmctl's engines folder with both engines."""

    folder: Path

    def prefix(self, version: str) -> Path:
        return next(self.folder.glob(f"{version}-*"))

    def runner(self, version: str) -> Path:
        return self.prefix(version) / "lib" / "ollama" / "llama-server"

    def wrap(self, program: Path, *, before: str = "", after: str = "") -> None:
        """Put a script in a program's place: `before` runs first, `after` are arguments for the real one."""
        program.rename(f"{program}.real")
        program.write_text(SCRIPT.format(before=before, after=after))
        program.chmod(0o755)

    def link(self, name: str) -> str | None:
        path = self.folder / name
        return path.readlink().name.partition("-")[0] if path.is_symlink() else None


@pytest.fixture
def engines(tmp_path: Path) -> EnginesFolder:
    """Mark: `real("engines")`."""
    folder = tmp_path / "engines"
    folder.mkdir()
    for version in (OLD, NEW):
        root = engine_part.of_version(version)
        assert root is not None
        shutil.copytree(root, folder / root.name, symlinks=True, copy_function=linked)
    return EnginesFolder(folder)


@dataclass(frozen=True)
class Box:
    """A machine on which a model is up on one of the engines."""

    llmctl: Llmctl
    engines: EnginesFolder
    profile: str

    def serves(self) -> str:
        """The version that serves, with its model resident and proved."""
        status = self.llmctl("status", "--json").json
        assert status["verdict"] == "proved", status
        answer = self.llmctl("ask", "Hello", "--max-tokens", "2")
        assert answer.code == 0, answer.err
        version: str = status["engine_version"]
        return version

    def trials(self) -> list[int]:
        """Processes of an engine on trial."""
        marker = f"LLMCTL_OWNER={Path(os.environ['XDG_STATE_HOME']) / 'llmctl'}#trial".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if marker in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@pytest.fixture
def box(llmctl: Llmctl, ready: str, engines: EnginesFolder) -> Callable[[str], Box]:
    def up(version: str) -> Box:
        del llmctl.environ["LLMCTL_ENGINE"]
        llmctl.environ["LLMCTL_ENGINES_DIR"] = str(engines.folder)
        # Threads that wait for each other are slow out of proportion on a busy machine.
        llmctl.environ["LLAMA_ARG_THREADS"] = "1"
        # No source of engines can be reached.
        llmctl.environ |= {"LLMCTL_RELEASE_URL": "http://127.0.0.1:9", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
        assert llmctl("engine", "use", version).code == 0
        done: Any = llmctl("up", ready)
        assert done.code == 0, done.err
        return Box(llmctl, engines, ready)

    return up
