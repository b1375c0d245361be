"""What only --deep looks at: it hashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HashedFacts:
    """`bad_blobs`: name and what is wrong, of every blob that a pin reaches; `hashed_bytes`: how much was read."""

    bad_blobs: tuple[tuple[str, str], ...] = ()
    hashed_bytes: int = 0
