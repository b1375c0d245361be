"""A token that a model wrote, with how likely it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    """`logprob` is the natural logarithm of its probability; `rivals` those of the likeliest tokens at its place,
    itself among them, as many as were asked for."""

    text: str
    logprob: float
    rivals: Mapping[str, float]

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Token:
        """An entry of `logprobs`, as the engine writes them."""
        rivals = {str(one["token"]): float(one["logprob"]) for one in entry.get("top_logprobs") or []}
        return cls(str(entry["token"]), float(entry["logprob"]), rivals)
