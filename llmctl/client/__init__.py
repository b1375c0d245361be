"""The SDK: what an engine's HTTP API offers, typed.

    from llmctl.client import Client

    client = Client("http://127.0.0.1:11434")
    for chunk in client.generate({"model": "qwen3:8b-q4_K_M"}, prompt=["Hello"]):
        print(chunk.text, end="")

`Client` speaks plain http through the standard library, which starts in a third of the time of the
libraries that speak more (docs/benchmarks.md). `AsyncClient` is for programs that run an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.client.sync import Client
from llmctl.client.types import Chunk, InstalledModel, LoadedModel, PullEvent, Usage

if TYPE_CHECKING:
    from llmctl.client.asynchronous import AsyncClient

__all__ = ["AsyncClient", "Chunk", "Client", "InstalledModel", "LoadedModel", "PullEvent", "Usage"]


def __getattr__(name: str) -> object:
    # httpx costs as much to import as the rest of a command: only who asks for AsyncClient pays.
    if name == "AsyncClient":
        from llmctl.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(name)
