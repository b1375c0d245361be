"""A real, installed Ollama: `bin/ollama` with its llama.cpp programs in `lib/ollama`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.parts import machine

MISSING = f"no engine in {machine.ENGINES}; `make parts` installs one"


@dataclass(frozen=True)
class InstalledEngine:
    root: Path
    version: str

    @property
    def ollama(self) -> Path:
        return self.root / "bin" / "ollama"

    @property
    def libraries(self) -> Path:
        return self.root / "lib" / "ollama"

    @property
    def rpc_server(self) -> Path:
        return self.libraries / "ggml-rpc-server"


def _version(root: Path) -> str:
    # HOME must exist for ollama; it is not written to by --version.
    said = subprocess.run(
        [root / "bin" / "ollama", "--version"],
        env={"HOME": str(root), "PATH": os.defpath, "OLLAMA_HOST": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found.group() if found else "0.0.0"


def _candidates() -> list[Path]:
    if given := machine.ENVIRON.get("LLMCTL_TEST_ENGINE"):
        return [Path(given)]
    return [path.parent.parent for path in sorted(machine.ENGINES.glob("[!.]*/bin/ollama"))]


# For upgrades: the other engine that can be built from package registries with exactly its own llama.cpp.
SECOND_VERSION = "0.33.0"


def of_version(version: str) -> Path | None:
    """The prefix of llmctl's own engine of that version in the machine's engines folder."""
    found = (path.parent.parent.parent for path in sorted(machine.ENGINES.glob(f"{version}-*/lib/ollama/llama-server")))
    return next((root for root in found if (root / "engine.json").is_file()), None)


def second_unavailable() -> str | None:
    """Why upgrades cannot be tested between two real engines, or None."""
    first = find()
    if first is None or of_version(first.version) is None:
        return MISSING
    if of_version(SECOND_VERSION) is None:
        return f"no {SECOND_VERSION} in {machine.ENGINES}; LLMCTL_REQUIRE=engines makes `make parts` build it"
    return None


def build_second() -> None:
    """Build the second engine, unless it is there: some 10 minutes on 2 CPUs, once per cache."""
    install = ["engine", "install", SECOND_VERSION, "--source", "registry", "--cpu", "--yes"]
    subprocess.run([sys.executable, "-m", "llmctl", *install], env=machine.ENVIRON, check=True)


@lru_cache(maxsize=1)
def find() -> InstalledEngine | None:
    """LLMCTL_TEST_ENGINE (a prefix) where set, else the newest of the machine's engines folder."""
    complete = [root for root in _candidates() if os.access(root / "lib" / "ollama" / "llama-server", os.X_OK)]
    engines = [InstalledEngine(root, _version(root)) for root in complete]
    return max(engines, key=lambda each: [int(n) for n in each.version.split(".")], default=None)
