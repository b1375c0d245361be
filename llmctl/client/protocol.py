"""What both clients share: how the engine says no, and how a long prompt becomes a request body.

Pure functions over bytes and dicts. The behaviours are those of ollama v0.33.0 and v0.34.0; each one that
matters is pinned by a test against the real server (tests/contract).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from llmctl.errors import EngineError, LlmctlError, NotFound, PromptTooLong, ServerUnreachable

# ollama's own client accepts lines of up to 8 MB (facts read in api/client.go); more is not an answer.
MAXIMUM_LINE_BYTES = 8 << 20
MAXIMUM_BODY_BYTES = 64 << 20


def error_from(status: int, body: bytes) -> LlmctlError:
    """The error that an HTTP status of 400 or more, or an `{"error": …}` line, stands for."""
    text = message_of(body)
    overflow = context_overflow(text)
    if overflow is not None:
        return prompt_too_long(*overflow)
    if status == 404:
        return NotFound(text or "the engine does not know what was asked for", "llmctl list", code="model_not_found")
    if status == 403 and not text:
        # An empty 403 is ollama's refusal of a Host or Origin header (server/routes.go:1776-1839).
        return ServerUnreachable("the server refuses requests from this address (403 without a text)")
    return EngineError(text or f"the engine answered HTTP {status}", "llmctl logs")


def message_of(body: bytes) -> str:
    """The text inside an error body: `{"error": "…"}`, the OpenAI form, or the bytes themselves."""
    try:
        document = json.loads(body)
    except ValueError:
        return body[:300].decode("utf-8", "replace").strip()
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return str(error) if error else ""


def context_overflow(text: str) -> tuple[int, int] | None:
    """(prompt tokens, context length) when `text` is the runner's exceed_context_size_error.

    With `truncate: false` ollama passes the runner's JSON on as a string inside its own `error`.
    """
    if "exceed_context_size_error" not in text:
        return None
    try:
        inner = json.loads(text)["error"]
        return int(inner["n_prompt_tokens"]), int(inner["n_ctx"])
    except (ValueError, KeyError, TypeError):
        return None


def prompt_too_long(prompt_tokens: int, context: int) -> PromptTooLong:
    return PromptTooLong(
        f"the prompt is {prompt_tokens} tokens long and the context holds {context}",
        f"shorten it by {prompt_tokens - context + 1} tokens or more, "
        "or raise server.context in the profile and run: llmctl up",
    )


def parse_line(line: bytes) -> dict[str, Any]:
    """One NDJSON line as a dict. Raises the error that an `{"error": …}` line stands for."""
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ServerUnreachable(f"the server sent something that is not JSON: {line[:80]!r}")
    if document.get("error"):
        raise error_from(500, line)
    return document


def streamed_body(fields: dict[str, Any], key: str, pieces: Iterable[str]) -> Iterator[bytes]:
    """A JSON object whose `key` is the concatenation of `pieces`, encoded piece by piece.

    So a prompt of any size passes through in constant memory.
    """
    head = json.dumps(fields)[:-1]
    yield f'{head}{", " if fields else ""}{json.dumps(key)}: "'.encode()
    for piece in pieces:
        yield json.dumps(piece)[1:-1].encode()
    yield b'"}'
