"""The asynchronous client, over httpx. The same methods and errors as `Client`, for asking and loading."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import httpx

from llmctl.client import protocol
from llmctl.client.sync import ANSWER_SECONDS, CONNECT_SECONDS
from llmctl.client.types import Chunk, InstalledModel, LoadedModel
from llmctl.errors import ServerNotRunning, ServerUnreachable, StreamEnded


class AsyncClient:
    """One engine at `base_url` (`http://host:port`). Use as an async context manager, or call `aclose`."""

    def __init__(self, base_url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
        self._patient = httpx.Timeout(None, connect=CONNECT_SECONDS)
        # A TLS context costs 20 ms to build and a loopback http:// address never uses it.
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=self._timeout,
            trust_env=False,
            verify=base_url.startswith("https:"),
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def version(self) -> str:
        return str((await self._json("GET", "/api/version")).get("version", ""))

    async def tags(self) -> list[InstalledModel]:
        return [InstalledModel.parse(entry) for entry in (await self._json("GET", "/api/tags")).get("models") or []]

    async def ps(self) -> list[LoadedModel]:
        return [LoadedModel.parse(entry) for entry in (await self._json("GET", "/api/ps")).get("models") or []]

    async def load(self, name: str) -> None:
        await self._json("POST", "/api/generate", {"model": name, "stream": False}, patient=True)

    async def unload(self, name: str) -> None:
        await self._json("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})

    async def generate(self, fields: dict[str, Any], prompt: Iterable[str]) -> AsyncIterator[Chunk]:
        """Stream the answer. Leaving the loop, or cancelling the task, ends the generation on the server."""

        async def body() -> AsyncIterator[bytes]:
            for piece in protocol.streamed_body(fields, "prompt", prompt):
                yield piece

        async with self._translated("POST", "/api/generate", content=body()) as response:
            async for line in response.aiter_lines():
                if line.strip():
                    chunk = Chunk.parse(protocol.parse_line(line.encode()))
                    yield chunk
                    if chunk.done:
                        return
        raise StreamEnded("the answer stopped before its end: the stream closed without `done`", "llmctl logs")

    async def _json(
        self, method: str, path: str, fields: dict[str, Any] | None = None, *, patient: bool = False
    ) -> dict[str, Any]:
        content = None if fields is None else json.dumps(fields).encode()
        timeout = self._patient if patient else self._timeout
        async with self._translated(method, path, content=content, timeout=timeout) as response:
            data = await response.aread()
        return protocol.parse_line(data) if data.strip() else {}

    @asynccontextmanager
    async def _translated(
        self, method: str, path: str, content: Any = None, timeout: httpx.Timeout | None = None
    ) -> AsyncIterator[httpx.Response]:
        try:
            async with self._http.stream(method, path, content=content, timeout=timeout or self._patient) as response:
                if response.status_code >= 400:
                    raise protocol.error_from(response.status_code, await response.aread())
                yield response
        except httpx.ConnectError:
            raise ServerNotRunning(f"no server at {self.base_url}", "llmctl up") from None
        except httpx.TimeoutException:
            raise ServerUnreachable(f"the server at {self.base_url} does not answer", "llmctl logs") from None
        except httpx.HTTPError as error:
            raise ServerUnreachable(f"lost the server at {self.base_url}: {error}", "llmctl status") from None
