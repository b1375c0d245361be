"""The header of a model that is still in its registry: by HTTP Range, and no more of it than the header.

Ollama's registry and hf.co answer `blobs/<digest>` with a redirect to a store that knows ranges; the redirect is
followed once, and every later range goes straight there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmctl.core.memory import gguf
from llmctl.errors import DownloadFailed
from llmctl.system import registry
from llmctl.system.download import CONNECT_SECONDS, LOOPBACK, http_errors, new_client
from llmctl.system.reach import require_reachable

if TYPE_CHECKING:
    import httpx

    from llmctl.core.model import ModelRef
    from llmctl.core.pin import Layer

PIECE_BYTES = 1 << 20
ANSWER_SECONDS = 15.0


def header(ref: ModelRef, layer: Layer, environ: Mapping[str, str] = os.environ) -> gguf.Gguf:
    """Read a blob's GGUF header. Raises what `registry.manifest` raises, and GgufError for what is no header."""

    url = f"{registry.base_url(ref)}/blobs/{layer.digest}"
    require_reachable(url, environ, CONNECT_SECONDS)
    client = new_client(url, ANSWER_SECONDS, loopback=ref.loopback)
    with http_errors(url), client:
        blob = _Blob(client, ref, url, layer.size_bytes)
        try:
            return gguf.parse(blob.read, layer.size_bytes)
        except gguf.GgufError as error:
            raise gguf.GgufError(f"{ref}: {error.message}") from None


class _Blob:
    """Reads pieces of a blob; what came with the last one is kept."""

    def __init__(self, client: httpx.Client, ref: ModelRef, url: str, size_bytes: int) -> None:
        self.client, self.ref, self.url, self.size_bytes = client, ref, url, size_bytes
        self.start = 0
        self.piece = b""
        self.headers: dict[str, str] = {}

    def read(self, offset: int, length: int) -> bytes:
        if not self.start <= offset <= offset + length <= self.start + len(self.piece):
            last = min(max(offset + length, offset + PIECE_BYTES), self.size_bytes) - 1
            self.start, self.piece = offset, self._range(offset, last)
        begin = offset - self.start
        return self.piece[begin : begin + length]

    def _range(self, first: int, last: int) -> bytes:
        for _ in range(2):
            headers = {**self.headers, "Range": f"bytes={first}-{last}"}
            with self.client.stream("GET", self.url, headers=headers) as response:
                if response.status_code == 401 and not self.headers:
                    response.read()
                    token = registry.token_for(self.client, response)
                    self.headers = {"Authorization": f"Bearer {token}"} if token else {}
                    if token:
                        continue
                self._check(response)
                body = self._body(response, last - first + 1)
                self._remember(response)
                return body
        raise DownloadFailed(f"{self.ref.host} refuses its own token for {self.ref}", code="registry_login")

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            raise DownloadFailed(
                f"{response.url.host} sends whole files only (no HTTP Range), so {self.ref} cannot be looked into",
                f"llmctl pull {self.ref}",
                code="no_range",
            )
        if response.status_code != 206:
            registry.raise_for(self.ref, response)

    def _body(self, response: httpx.Response, length: int) -> bytes:
        body = bytearray()
        for chunk in registry.flowing(response):
            body += chunk
            if len(body) > length:
                raise DownloadFailed(f"{response.url.host} sent more than was asked for", code="registry_answer")
        return bytes(body)

    def _remember(self, response: httpx.Response) -> None:
        """Where the redirect led. A token is for the registry and goes nowhere else."""
        secure = response.url.scheme == "https" or response.url.host in LOOPBACK
        if str(response.url) != self.url and secure:
            if response.url.host != self.ref.host.partition(":")[0]:
                self.headers = {}
            self.url = str(response.url)
