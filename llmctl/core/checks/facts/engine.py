"""The engine's program that llmctl would use, and what must stand beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineFacts:
    """`executable` None: there is none that will do; `passed_over` says why each was not taken.

    `runner` and `quantizer` are paths of llama-server and llama-quantize, None where they are missing or not
    executable. `backend`: cpu, cuda or None where the engine does not tell.
    """

    executable: str | None
    version: str | None
    backend: str | None
    runner: str | None
    quantizer: str | None
    passed_over: tuple[str, ...]
