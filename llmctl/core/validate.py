"""From a document to a Profile: every problem at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from llmctl.core.kinds import KeyPath, Problem, dotted
from llmctl.core.model import ModelRef
from llmctl.core.profile import EngineSpec, GatewaySpec, GpuSpec, ModelSpec, Profile, ServerSpec
from llmctl.core.schema import NAME, PROFILE
from llmctl.core.size import parse_size
from llmctl.errors import InvalidProfile, UsageError

HINT = "llmctl init --dry-run prints a valid profile to compare with"


def parse_profile(data: object, lines: Mapping[KeyPath, int], where: str) -> Profile:
    """The profile that `data` describes; its name is the stem of `where`.

    `lines` maps a key's path to its line in the file, as far as known. Raises InvalidProfile with every
    problem as `FILE:LINE: key: found X, allowed Y`.
    """
    problems = list(PROFILE.problems(data, ()))
    if not problems and isinstance(data, Mapping):
        profile = _build(data, PurePath(where).stem)
        problems = list(_contradictions(profile))
        if not problems:
            return profile
    problems.sort(key=lambda problem: line_of(problem.path, lines))
    raise InvalidProfile("\n".join(_sentence(problem, lines, where) for problem in problems), HINT)


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of a key, or of the nearest key around it."""
    around = (path[:length] for length in range(len(path), -1, -1))
    return next((lines[each] for each in around if each in lines), 1)


def _sentence(problem: Problem, lines: Mapping[KeyPath, int], where: str) -> str:
    key = f"{dotted(problem.path)}: " if problem.path else ""
    return f"{where}:{line_of(problem.path, lines)}: {key}found {problem.found}, allowed {problem.allowed}"


def _build(data: Mapping[str, Any], name: str) -> Profile:
    server, gpu = data.get("server", {}), dict(data.get("gpu", {}))
    if "reserve" in gpu:
        gpu["reserve_bytes"] = parse_size(gpu.pop("reserve"))
    if isinstance(gpu.get("devices"), (list, tuple)):
        gpu["devices"] = tuple(gpu["devices"])
    return Profile(
        name=name,
        models=tuple(ModelSpec(**model) for model in data["models"]),
        private=data.get("private", Profile.private),
        description=data.get("description", Profile.description),
        engine=EngineSpec(**data.get("engine", {})),
        server=ServerSpec(**server, address_given="host" in server or "port" in server),
        gpu=GpuSpec(**gpu),
        gateway=GatewaySpec(**data.get("gateway", {})),
    )


def _contradictions(profile: Profile) -> Iterator[Problem]:
    """What no single key can show: values that exclude each other."""
    server = profile.server
    yield from _same_names(profile.models)
    for index, model in enumerate(profile.models):
        if model.fallback and model.source != "registry":
            path = ("models", index, "fallback")
            yield Problem(path, f"{model.fallback} with source {model.source}", "it only with source: registry")
    if len(profile.resident) > server.max_loaded:
        found = f"{server.max_loaded} with {len(profile.resident)} resident models"
        yield Problem(("server", "max_loaded"), found, f"{len(profile.resident)} or more, or resident: false")
    # llama.cpp refuses to load a quantized V cache without flash attention (src/llama-context.cpp:3594).
    if server.kv_cache != "f16" and server.flash_attention == "off":
        found = f"off with kv_cache {server.kv_cache}"
        yield Problem(("server", "flash_attention"), found, "auto or on, or kv_cache: f16")
    fixed = server.address_given or not profile.private
    if fixed and profile.gateway.port == server.port:
        yield Problem(("gateway", "port"), f"the server's port {server.port}", "another port")


def _same_names(models: tuple[ModelSpec, ...]) -> Iterator[Problem]:
    """Names that Ollama would refuse after all, or take for one another: it compares them blind to case."""
    seen: set[str] = set()
    for index, model in enumerate(models):
        path = ("models", index, "name")
        try:
            full = ModelRef.parse(model.name).full.lower()
        except UsageError:
            yield Problem(path, repr(model.name), NAME.allowed)
            continue
        if full in seen:
            yield Problem(path, f"{model.name} again", "each model once")
        seen.add(full)
