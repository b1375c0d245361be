"""The real parts that tests run against: which exist here, and where.

A test names what it needs with `@pytest.mark.real("ollama", "model")`. A part that is missing skips the test with
its reason, or fails it when LLMCTL_REQUIRE names the part.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from tests.parts import engine, nvml, oci_tools, registry, starter, systemd, tmpfs


@dataclass(frozen=True)
class Part:
    """`detail` says what was found, or why the part is missing."""

    real: bool
    detail: str


def _ollama() -> Part:
    found = engine.find()
    return Part(True, f"{found.version} in {found.root}") if found else Part(False, engine.MISSING)


def _engines() -> Part:
    reason = engine.second_unavailable()
    return Part(reason is None, reason or f"{engine.SECOND_VERSION} beside it, for upgrades")


def _rpc() -> Part:
    found = engine.find()
    if found is None:
        return Part(False, engine.MISSING)
    if not os.access(found.rpc_server, os.X_OK):
        return Part(False, f"no {found.rpc_server}: the engine was built without GGML_RPC")
    return Part(True, "ggml-rpc-server, a GPU without a GPU")


def _model() -> Part:
    reason = starter.unavailable()
    return Part(reason is None, reason or "Gemma 3 270M, Q4_K_M")


def _nvml() -> Part:
    reason = nvml.unavailable()
    return Part(reason is None, reason or "a stand-in library under the real pynvml")


def _tmpfs() -> Part:
    reason = tmpfs.unavailable()
    return Part(reason is None, reason or "a small file system that fills up")


def _registry() -> Part:
    reason = registry.unavailable()
    return Part(reason is None, reason or "docker-registry behind nginx")


def _oras() -> Part:
    reason = oci_tools.oras_unavailable()
    return Part(reason is None, reason or f"oras {oci_tools.ORAS_VERSION}, from its Go module")


def _systemd() -> Part:
    reason = systemd.unavailable()
    return Part(reason is None, reason or "PID 1 of a container")


def _atheris() -> Part:
    real = find_spec("atheris") is not None
    return Part(real, "a fuzzer that sees which lines are reached" if real else "PyPI has none for this Python")


def _program(name: str) -> Callable[[], Part]:
    def find() -> Part:
        path = shutil.which(name)
        return Part(path is not None, path or f"no {name} on PATH")

    return find


FINDERS: dict[str, Callable[[], Part]] = {
    "ollama": _ollama,
    "engines": _engines,
    "model": _model,
    "rpc": _rpc,
    "nvml": _nvml,
    "tmpfs": _tmpfs,
    "registry": _registry,
    "systemd": _systemd,
    "oras": _oras,
    "atheris": _atheris,
    **{name: _program(name) for name in ("skopeo", "tmux", "bash", "zsh", "fish")},
}


@cache
def part(name: str) -> Part:
    return FINDERS[name]()


def required() -> frozenset[str]:
    """The parts that LLMCTL_REQUIRE says must be real. An unknown name is an error, or a typo would require nothing."""
    names = frozenset(filter(None, _REQUIRE.replace(" ", "").split(",")))
    if unknown := names - FINDERS.keys():
        raise ValueError(f"LLMCTL_REQUIRE names {', '.join(sorted(unknown))}; known: {', '.join(FINDERS)}")
    return names


def lines() -> list[str]:
    """One line per part, for pytest's header and for CI's log."""
    needed = required()

    def line(name: str) -> str:
        found = part(name)
        mark = "real" if found.real else "MISSING, required" if name in needed else "missing"
        return f"  {name:<8} {mark}: {found.detail}"

    return ["real parts:", *(line(name) for name in FINDERS)]


# Read when imported: the tests themselves run with every LLMCTL_* cleared.
_REQUIRE = os.environ.get("LLMCTL_REQUIRE", "")
