"""What the engine answers, as frozen dataclasses. Bytes are integers, times are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.core.token import Token

NANOSECONDS = 1e-9


@dataclass(frozen=True)
class InstalledModel:
    """One entry of /api/tags. `digest` is the manifest's sha256 as 64 hex digits, without `sha256:`."""

    name: str
    digest: str
    size_bytes: int
    quantization: str | None = None
    family: str | None = None

    @classmethod
    def parse(cls, entry: dict[str, Any]) -> InstalledModel:
        details = entry.get("details") or {}
        return cls(
            name=entry["name"],
            digest=entry.get("digest", ""),
            size_bytes=int(entry.get("size", 0)),
            quantization=details.get("quantization_level") or None,
            family=details.get("family") or None,
        )


@dataclass(frozen=True)
class LoadedModel:
    """One entry of /api/ps. `context_length` is per slot.

    On a server without a GPU `size_bytes` and `size_vram_bytes` are both 0 (ollama v0.34.0, seen).
    Two names of the same weights share one runner and the name that loaded first is shown: compare digests.
    """

    name: str
    digest: str
    size_bytes: int
    size_vram_bytes: int
    context_length: int | None
    expires_at: str | None = None

    @classmethod
    def parse(cls, entry: dict[str, Any]) -> LoadedModel:
        return cls(
            name=entry["name"],
            digest=entry.get("digest", ""),
            size_bytes=int(entry.get("size", 0)),
            size_vram_bytes=int(entry.get("size_vram", 0)),
            context_length=entry.get("context_length") or None,
            expires_at=entry.get("expires_at"),
        )


@dataclass(frozen=True)
class PullEvent:
    """One line of /api/pull or /api/create. The counts are None where the line carries none."""

    status: str
    digest: str | None = None
    total_bytes: int | None = None
    completed_bytes: int | None = None


@dataclass(frozen=True)
class Usage:
    """The figures of a finished answer. The engine leaves out what is zero, so absent means 0."""

    prompt_tokens: int
    completion_tokens: int
    total_seconds: float
    load_seconds: float
    prompt_seconds: float
    completion_seconds: float

    @classmethod
    def parse(cls, final: dict[str, Any]) -> Usage:
        def seconds(key: str) -> float:
            return float(final.get(key, 0)) * NANOSECONDS

        return cls(
            prompt_tokens=int(final.get("prompt_eval_count", 0)),
            completion_tokens=int(final.get("eval_count", 0)),
            total_seconds=seconds("total_duration"),
            load_seconds=seconds("load_duration"),
            prompt_seconds=seconds("prompt_eval_duration"),
            completion_seconds=seconds("eval_duration"),
        )


@dataclass(frozen=True)
class Chunk:
    """One line of a streamed answer. Only the last has `done_reason` and `usage`; `logprobs` where asked for."""

    text: str = ""
    thinking: str = ""
    done: bool = False
    done_reason: str | None = None
    usage: Usage | None = None
    logprobs: tuple[Token, ...] = ()

    @classmethod
    def parse(cls, line: dict[str, Any]) -> Chunk:
        done = bool(line.get("done"))
        return cls(
            text=line.get("response", ""),
            thinking=line.get("thinking", ""),
            done=done,
            done_reason=line.get("done_reason") if done else None,
            usage=Usage.parse(line) if done else None,
            logprobs=tuple(Token.parse(entry) for entry in line.get("logprobs") or ()),
        )
