"""Who asks, and with which environment."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.checks.facts.shell import ShellFacts

if TYPE_CHECKING:
    from llmctl.workflows.gather import Given

PREFIXES = ("OLLAMA_", "LLAMA_", "GGML_", "CUDA_", "HIP_", "ROCR_", "NVIDIA_", "LLMCTL_")
NAMES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "PATH", "LD_LIBRARY_PATH", "HOME"})

MARKERS = (
    (Path("/run/systemd/container"), ""),
    (Path("/.dockerenv"), "docker"),
    (Path("/run/.containerenv"), "podman"),
    (Path("/run/secrets/kubernetes.io/serviceaccount"), "Kubernetes"),
    (Path("/var/run/secrets/kubernetes.io/serviceaccount"), "Kubernetes"),
)


def gather(given: Given) -> ShellFacts:
    return ShellFacts(
        user_name(os.geteuid()),
        os.geteuid(),
        of_interest(given.environ),
        container(),
        "microsoft" in os.uname().release.lower(),
    )


def of_interest(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(PREFIXES) or name.upper() in NAMES}


def user_name(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def container() -> str | None:
    """What says that this is a container: the file of systemd (systemd.exec(5)), docker, podman or Kubernetes."""
    for path, name in MARKERS:
        with suppress(OSError):
            text = "" if path.is_dir() else path.read_text()
            return name or text.strip() or "a container"
    return None
