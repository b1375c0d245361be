"""The engine's runner (llama-server), asked on its own port: whether it lives and whether it has work.

It listens on the loopback without a key, at the port in its arguments (ollama v0.34.0 llm/llama_server.go). Neither
question makes it generate anything.
"""

from __future__ import annotations

import http.client
import json
from typing import Literal

SECONDS = 1.0
LIMIT_BYTES = 1 << 20


def health(port: int) -> Literal["ok", "loading", "silent"]:
    """What it says at /health, which it answers while it generates too; 503 while it loads."""
    status, _ = ask(port, "/health")
    if status is None:
        return "silent"
    return "ok" if status == 200 else "loading"


def processing(port: int) -> bool | None:
    """Whether one of its slots has a request in work; None where it does not tell. It writes a log line for this."""
    status, body = ask(port, "/slots")
    if status is None:
        # /slots is answered between two batches.
        return True
    try:
        return any(slot["is_processing"] for slot in json.loads(body)) if status == 200 else None
    except (ValueError, TypeError, KeyError):
        return None


def ask(port: int, path: str) -> tuple[int | None, bytes]:
    """One GET; no status when it does not answer in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(LIMIT_BYTES)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
