"""The engine that `up` would use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.engine import Rule
from llmctl.engines import found
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.workflows.gather import Given


def gather(given: Given) -> EngineFacts:
    """The one that llmctl's server runs on; else the one that the next start takes, or what stands in its place."""
    owned = given.server.owned()
    if owned is not None and (program := running_program(owned.pid, owned.argv)) is not None:
        return beside(program, None, None, ())
    try:
        version = given.profile.engine.version
    except NotGathered:
        version = None
    try:
        search = given.engines.search(Rule(version))
    except LlmctlError as error:
        asked = found.configured(given.environ)
        passed_over: tuple[str, ...] = (error.message,)
    else:
        if (engine := search.engine) is not None:
            return beside(engine.executable, engine.version, engine.backend, search.passed_over)
        asked, passed_over = found.on_path(given.environ), search.passed_over
    if asked is not None and found.is_program(asked):
        # Too old, or installed in part.
        there = beside(asked.resolve(), None, None, passed_over)
        return there if there.runner is None else replace(there, executable=None)
    return EngineFacts(None, None, None, None, None, passed_over)


def running_program(pid: int, argv: tuple[str, ...]) -> Path | None:
    """The file that a process runs; by its own word where the kernel does not tell this user."""
    for path in (Path(f"/proc/{pid}/exe"), Path(argv[0] if argv else "")):
        try:
            return path.resolve(strict=True)
        except OSError:
            continue
    return None


def beside(executable: Path, version: str | None, backend: str | None, passed_over: tuple[str, ...]) -> EngineFacts:
    folder = executable.parent.parent / "lib" / "ollama"
    runner, quantizer = (folder / name for name in ("llama-server", "llama-quantize"))
    return EngineFacts(
        str(executable),
        version,
        backend,
        str(runner) if found.is_program(runner) else None,
        str(quantizer) if found.is_program(quantizer) else None,
        passed_over,
    )
