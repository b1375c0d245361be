"""What only --deep looks at: it hashes, and makes the model answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeepFacts:
    """`bad_blobs`: name and what is wrong, of every blob that a pin reaches. `answer_seconds`: until the first token
    of one probe, None where it failed, with `answer_error`."""

    bad_blobs: tuple[tuple[str, str], ...] = ()
    hashed_bytes: int = 0
    answer_seconds: float | None = None
    answer_error: str | None = None
    tokens_per_second: float | None = None
