"""Who asks, and with which environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ShellFacts:
    """`environ` holds only variables that an engine or a driver reads (OLLAMA_*, LLAMA_*, CUDA_*, GGML_*, *_PROXY).

    `container`: what tells that this is one, None outside. `wsl`: Windows' kernel.
    """

    user: str
    uid: int
    environ: Mapping[str, str]
    container: str | None
    wsl: bool
