"""What a build needs: compilers from the machine; Go, cmake and ninja from the machine or from PyPI wheels."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import EngineMissing, LlmctlError
from llmctl.system.command import run

# ollama v0.34.0 go.mod says `go 1.26.0`; llama.cpp's CMakeLists.txt 3.14, and 3.18 for CUDA.
MINIMUM_TOOLS = {"go": (1, 26), "cmake": (3, 18), "ninja": (1, 10)}
VERSION_ARGUMENT = {"go": "version", "cmake": "--version", "ninja": "--version"}
TOOL_VERSION = re.compile(r"(?:^|go|\s)(\d+)\.(\d+)")
COMPILERS = ("gcc", "g++")
COMPILER_PACKAGES = "sudo apt-get install gcc g++ | sudo dnf install gcc gcc-c++ | sudo pacman -S gcc"
CUDA_HOME = Path("/usr/local/cuda")
PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class Tools:
    """Where the tools of the machine are; `missing` are those that must come from wheels."""

    found: tuple[str, ...]
    missing: tuple[str, ...]


def search_path(environ: Mapping[str, str]) -> str:
    return environ.get("PATH", os.defpath)


def require_compilers(environ: Mapping[str, str]) -> None:
    missing = [name for name in COMPILERS if shutil.which(name, path=search_path(environ)) is None]
    if missing:
        raise EngineMissing(
            f"building an engine needs {' and '.join(missing)}", COMPILER_PACKAGES, code="compiler_missing"
        )


def nvcc(environ: Mapping[str, str]) -> Path | None:
    """CUDA's compiler: on PATH, below CUDA_HOME or where the toolkit's packages put it."""
    homes = [Path(environ["CUDA_HOME"])] if environ.get("CUDA_HOME") else []
    folders = [search_path(environ), *(str(home / "bin") for home in [*homes, CUDA_HOME])]
    found = shutil.which("nvcc", path=os.pathsep.join(folders))
    return Path(found) if found else None


def survey(environ: Mapping[str, str]) -> Tools:
    """Which tools the machine has in a version that will do."""
    found = tuple(name for name in MINIMUM_TOOLS if has(name, environ))
    return Tools(found, tuple(name for name in MINIMUM_TOOLS if name not in found))


def has(name: str, environ: Mapping[str, str]) -> bool:
    program = shutil.which(name, path=search_path(environ))
    if program is None:
        return False
    try:
        finished = run(
            [program, VERSION_ARGUMENT[name]],
            environ={**environ, "GOTOOLCHAIN": "local"},
            timeout_seconds=PROBE_SECONDS,
        )
    except LlmctlError:
        return False
    match = TOOL_VERSION.search(finished.text)
    if finished.status != 0 or match is None:
        return False
    return (int(match.group(1)), int(match.group(2))) >= MINIMUM_TOOLS[name]


def jobs() -> int:
    """Compilers at a time: one per CPU, as long as each has 1 GiB."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory_bytes >> 30))
