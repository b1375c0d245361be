"""The machine's memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostFacts:
    """`available_bytes`: what can be had without swapping (MemAvailable)."""

    total_bytes: int | None
    available_bytes: int | None
    swap_free_bytes: int | None
