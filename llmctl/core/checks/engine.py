"""Checks of the engine's program."""

from __future__ import annotations

from llmctl.core.checks.facts import Facts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy


def none(facts: Facts) -> Judgement:
    engine = facts.engine
    if engine.executable is not None or facts.server.answers:
        return None
    return Finding(
        "no Ollama that will do is on this machine",
        "an engine on PATH, configured, or installed by llmctl",
        Remedy("install one; nothing outside llmctl's own folders is changed", ("llmctl engine install",)),
        engine.passed_over,
    )


def no_runner(facts: Facts) -> Judgement:
    engine = facts.engine
    if engine.executable is None or engine.runner is not None:
        return None
    return Finding(
        "lib/ollama/llama-server is missing beside it: the server starts, and every load fails",
        "llama-server, executable",
        Remedy("install the engine anew", ("llmctl engine install",)),
        subject=engine.executable,
    )


def no_quantizer(facts: Facts) -> Judgement:
    engine = facts.engine
    if engine.executable is None or engine.runner is None or engine.quantizer is not None:
        return None
    return Finding(
        "lib/ollama/llama-quantize is missing beside it: no model can be made of a GGUF file",
        "llama-quantize, executable",
        Remedy("install the engine anew", ("llmctl engine install",)),
        subject=engine.executable,
    )


CHECKS = (
    Check(
        "engine.none",
        "There is no engine",
        "error",
        "llmctl runs Ollama 0.30 or newer: the one that LLMCTL_ENGINE names, the one on PATH, or one of its own.",
        none,
    ),
    Check(
        "engine.no-llama-server",
        "The engine's runner is missing",
        "error",
        "Ollama loads every model in llama-server, which it looks for in lib/ollama beside it. It starts without it "
        "and fails at the first load (ollama v0.33.0 llm/llama_binary.go:61-157).",
        no_runner,
        after=("engine.none",),
    ),
    Check(
        "engine.no-llama-quantize",
        "llama-quantize is missing",
        "warning",
        "`ollama create` from a GGUF file runs llama-quantize (ollama v0.33.0 server/create.go:765-771). Models from a "
        "registry are served without it.",
        no_quantizer,
        after=("engine.none", "engine.no-llama-server"),
    ),
)
