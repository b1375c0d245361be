"""How engines are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import pairs, table

if TYPE_CHECKING:
    from llmctl.core.engine import Engine, Overview
    from llmctl.engines.waiting import Waited

NONE = "No engine here. Get one with: llmctl engine install"


def engine_lines(engine: Engine, width: int) -> list[str]:
    rows = [
        ("engine", f"{engine.kind} {engine.version}"),
        ("from", engine.reason),
        ("backend", engine.backend),
        ("program", str(engine.executable)),
        ("runner", str(engine.runner)),
        ("sha256", engine.release_sha256 or ""),
    ]
    return pairs(rows, width)


def list_lines(overview: Overview, width: int) -> list[str]:
    if not overview.engines:
        return [NONE, *overview.passed_over]
    header = ("version", "in use", "origin", "backend", "where")
    rows = [
        (engine.name, "yes" if engine == overview.in_use else "", engine.origin, engine.backend, str(engine.prefix))
        for engine in overview.engines
    ]
    return [*table(header, rows, width), *(f"not used: {reason}" for reason in overview.passed_over)]


def chosen_lines(overview: Overview, width: int) -> list[str]:
    """After `engine use`: what the next start takes."""
    return engine_lines(overview.in_use, width) if overview.in_use else [NONE]


def waited_lines(waited: Waited, _: int) -> list[str]:
    found = ", ".join(waited.devices) or "no GPU is required"
    return [f"Ollama {waited.engine} can start: {found}"]
