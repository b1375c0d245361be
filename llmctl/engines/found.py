"""Look at an `ollama` that someone else installed: where its runner is, which version it is, whether it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from llmctl.core.engine import Backend, Engine, Origin, version_in
from llmctl.errors import EngineMissing, LlmctlError
from llmctl.system.command import run

CONFIGURED = "LLMCTL_ENGINE"
VERSION_SECONDS = 20.0
# Nothing listens on port 1, so no running server answers in place of the program asked.
NOBODY = "127.0.0.1:1"


def on_path(environ: Mapping[str, str]) -> Path | None:
    """The `ollama` on PATH, as named there."""
    name = shutil.which("ollama", path=environ.get("PATH", os.defpath))
    return Path(name) if name else None


def configured(environ: Mapping[str, str]) -> Path | None:
    """The program that LLMCTL_ENGINE names."""
    value = environ.get(CONFIGURED)
    return Path(value).expanduser().absolute() if value else None


def look(program: Path, origin: Origin, environ: Mapping[str, str]) -> Engine:
    """What `program` is. Raises EngineMissing where it is not a complete Ollama.

    Ollama resolves symlinks of itself and looks for `../lib/ollama/llama-server` (ollama v0.33.0 ml/path.go:192).
    """
    executable = program.resolve()
    if not is_program(executable):
        raise EngineMissing(f"{program} is not an executable file")
    prefix = executable.parent.parent
    runner = prefix / "lib" / "ollama" / "llama-server"
    if not is_program(runner):
        raise EngineMissing(f"{program} has no {runner}: it is older than 0.30, or installed in part")
    return Engine(
        kind="ollama",
        version=version_of(executable, environ),
        prefix=prefix,
        executable=executable,
        runner=runner,
        origin=origin,
        backend=backend_of(runner.parent),
        reason=f"{CONFIGURED} names {program}" if origin == "configured" else f"{program} is on PATH",
    )


def is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def version_of(executable: Path, environ: Mapping[str, str]) -> str:
    """The version that the program says it is; it needs no server for that. Raises EngineMissing."""
    finished = run(
        [str(executable), "--version"],
        environ={"HOME": "/", **environ, "OLLAMA_HOST": NOBODY},
        timeout_seconds=VERSION_SECONDS,
    )
    version = version_in(finished.text)
    if finished.status != 0 or version is None:
        last = finished.tail[-1] if finished.tail else "no output"
        raise EngineMissing(f"`{executable} --version` failed with status {finished.status}: {last}")
    return version


def backend_of(libraries: Path) -> Backend:
    """ "cuda" where CUDA's libraries lie beside the runner; what else there may be only a start tells."""
    return "cuda" if any(libraries.glob("cuda_*")) or any(libraries.glob("libggml-cuda*")) else "unknown"


def check_runs(engine: Engine, environ: Mapping[str, str]) -> None:
    """Run both programs once. Raises EngineMissing or LlmctlError unless they are what they should be."""
    version = version_of(engine.executable, environ)
    if version != engine.version:
        raise EngineMissing(f"{engine.executable} is {version}, not {engine.version}")
    libraries = str(engine.runner.parent)
    search = ":".join(filter(None, [libraries, environ.get("LD_LIBRARY_PATH")]))
    finished = run(
        [str(engine.runner), "--version"],
        environ={**environ, "LD_LIBRARY_PATH": search},
        timeout_seconds=VERSION_SECONDS,
    )
    if finished.status != 0:
        last = finished.tail[-1] if finished.tail else "no output"
        raise LlmctlError(f"`{engine.runner} --version` failed with status {finished.status}: {last}")
