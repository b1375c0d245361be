"""The devices that an engine can use, by its own word: `llama-server --list-devices`.

NVML sees a card that the engine cannot use (nvidia_uvm not loaded, a build without CUDA); the engine's own
list does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LIMIT_SECONDS = 60.0
HEADING = "Available devices:"
# "  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23860 MiB free)", llama.cpp b10760 common/arg.cpp
DEVICE_LINE = re.compile(r"^\s+(\S+): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Device:
    """One device; the engine prints its bytes in whole MiB."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


def list_devices(runner: Path, environ: Mapping[str, str]) -> tuple[Device, ...]:
    """What the engine's runner finds; empty on a machine where only the CPU is left.

    A release keeps its GPU back ends in folders beside the runner and is told which to load (ollama v0.33.0
    llm/llama_binary.go:61-157; read, not yet seen on a GPU), so each of them is tried in turn.
    """
    return asked(runner, environ, LIMIT_SECONDS) or ()


def asked(runner: Path, environ: Mapping[str, str], limit_seconds: float) -> tuple[Device, ...] | None:
    """The same; None where the runner did not say, at all or within the limit of each try."""
    told = False
    for extra in backends(runner.parent):
        text = run(runner, {**environ, **extra}, limit_seconds)
        if found := parse(text):
            return found
        told |= HEADING in text
    return () if told else None


def backends(folder: Path) -> Iterator[dict[str, str]]:
    """The runner as it is, then once for each folder of back ends, the newest first."""
    yield {}
    for library in sorted(folder.glob("*/libggml-*.so"), reverse=True):
        paths = f"{folder}:{library.parent}"
        yield {"LD_LIBRARY_PATH": paths, "GGML_BACKEND_PATH": str(library)}


def run(runner: Path, environ: Mapping[str, str], limit_seconds: float) -> str:
    import subprocess

    command = [str(runner), "--list-devices", "--offline"]
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def parse(text: str) -> tuple[Device, ...]:
    """The lines after the heading."""
    listed = text.partition(HEADING)[2]
    return tuple(
        Device(match[1], match[2], int(match[3]) * MIB, int(match[4]) * MIB) for match in DEVICE_LINE.finditer(listed)
    )
