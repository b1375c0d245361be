"""How engines are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.lifecycle import PLACES
from llmctl.output.text import duration, pairs, table

if TYPE_CHECKING:
    from llmctl.core.engine import Engine, Overview
    from llmctl.engines.waiting import Waited
    from llmctl.workflows.trial import ModelCompared
    from llmctl.workflows.upgrade import Upgraded

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


def upgraded_lines(result: Upgraded, width: int) -> list[str]:
    """After `engine upgrade` and `engine rollback`: what serves now, and what was seen."""
    lines = [outcome_words(result)]
    lines += [f"  {reason}" for reason in result.reasons]
    for model in result.models:
        lines += ["", *compared_lines(model, width)]
    if result.away_seconds is not None:
        lines += ["", f"No model answered for {duration(result.away_seconds)}."]
    return lines


def outcome_words(result: Upgraded) -> str:
    if result.outcome == "already":
        return f"{result.to} serves already"
    if result.outcome == "planned":
        return f"would put {result.to} in the place of {result.from_}"
    if result.outcome == "kept":
        return f"{result.to} is not used, {result.in_use} serves as before:"
    return f"{result.to} is in the place of {result.from_}"


def compared_lines(model: ModelCompared, width: int) -> list[str]:
    speeds = ""
    if model.old_tokens_per_second is not None and model.new_tokens_per_second is not None:
        speeds = f"{model.new_tokens_per_second:.1f} tokens/s, {model.old_tokens_per_second:.1f} before"
    alike = f"{model.equal_tokens} of {model.tokens} tokens alike" if model.tokens is not None else "not compared"
    if model.difference is not None:
        alike += f", their log probabilities differ by {model.difference:.3f} on average"
    rows = [
        ("model", model.name),
        ("lies", PLACES[model.new_place] if model.new_place else ""),
        ("answers", alike),
        ("speed", speeds),
    ]
    return pairs(rows, width)
