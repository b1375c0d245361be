"""The synchronous client, over http.client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llmctl.client import protocol
from llmctl.client.types import Chunk, InstalledModel, LoadedModel, PullEvent
from llmctl.errors import EngineError, NotFound, ServerNotRunning, ServerUnreachable, StreamEnded

T = TypeVar("T")

CONNECT_SECONDS = 5.0
# /api/ps can block about 5 s while a runner unloads (facts read in server/sched.go).
ANSWER_SECONDS = 30.0


class Client:
    """One engine at `base_url` (`http://host:port`). Opens a connection per call; safe to keep for long.

    Raises ServerNotRunning when nothing listens, ServerUnreachable when what listens does not answer as an
    engine does, NotFound, PromptTooLong and EngineError for what the engine says.
    """

    def __init__(self, base_url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise ServerUnreachable(f"not an http:// address of a server: {base_url}", "llmctl config")
        self.base_url = base_url.rstrip("/")
        self.host: str = parts.hostname
        self.port: int = parts.port or 80
        self.answer_seconds = answer_seconds

    def version(self) -> str:
        return str(self._json("GET", "/api/version").get("version", ""))

    def tags(self) -> list[InstalledModel]:
        return [InstalledModel.parse(entry) for entry in self._json("GET", "/api/tags").get("models") or []]

    def ps(self) -> list[LoadedModel]:
        """The loaded models. Empty while a load is under way."""
        return [LoadedModel.parse(entry) for entry in self._json("GET", "/api/ps").get("models") or []]

    def cloud_disabled(self) -> bool | None:
        """Whether the server never asks ollama.com (since 0.16.2); None where it does not say."""
        try:
            said = self._json("GET", "/api/status").get("cloud")
        except NotFound:
            return None
        disabled = said.get("disabled") if isinstance(said, dict) else None
        return disabled if isinstance(disabled, bool) else None

    def show(self, name: str) -> dict[str, Any]:
        return self._json("POST", "/api/show", {"model": name})

    def generate(
        self, fields: dict[str, Any], prompt: Iterable[str], *, silence_seconds: float | None = None
    ) -> Iterator[Chunk]:
        """Stream the answer to `prompt`, whose pieces are sent as they come.

        `fields` is the rest of the request. Closing the iterator closes the connection, which ends the
        generation on the server. Raises StreamEnded when the stream stops before its last line, and
        ServerUnreachable when nothing arrives for `silence_seconds` (None: wait as long as it takes).
        """
        body = protocol.streamed_body(fields, "prompt", prompt)
        for line in self._stream("/api/generate", body, silence_seconds):
            chunk = Chunk.parse(line)
            yield chunk
            if chunk.done:
                return
        raise StreamEnded("the answer stopped before its end: the stream closed without `done`", "llmctl logs")

    def load(self, name: str, options: dict[str, Any] | None = None, keep_alive: int | None = None) -> None:
        """Load a model and wait until it is there, however long that takes.

        Leaving (closing the process, Ctrl-C) aborts the load on the server.
        """
        fields: dict[str, Any] = {"model": name, "stream": False}
        if options:
            fields["options"] = options
        if keep_alive is not None:
            fields["keep_alive"] = keep_alive
        self._json("POST", "/api/generate", fields, answer_seconds=None)

    def unload(self, name: str) -> None:
        """Ask for the end of a model's stay. Answers before its runner is gone; `ps` shows it a little longer."""
        self._json("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})

    def pull(self, name: str, *, insecure: bool = False) -> Iterator[PullEvent]:
        """Let the engine pull `name`; `insecure` makes it speak http. Raises EngineError without `success`."""
        yield from self._events("/api/pull", {"model": name, "insecure": insecure})

    def push(self, name: str, *, insecure: bool = False) -> Iterator[PullEvent]:
        """Let the engine push `name` to the registry in it; `insecure` as for `pull`."""
        yield from self._events("/api/push", {"model": name, "insecure": insecure})

    def create(
        self,
        model: str,
        *,
        from_: str | None = None,
        files: dict[str, str] | None = None,
        template: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> Iterator[PullEvent]:
        """Create `model` from another model or from blobs (`files`: file name to `sha256:<hex>`)."""
        fields = {"from": from_, "files": files, "template": template, "parameters": parameters}
        given = {key: value for key, value in fields.items() if value is not None}
        yield from self._events("/api/create", {"model": model, **given})

    def copy(self, source: str, destination: str) -> None:
        self._json("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, name: str) -> None:
        self._json("DELETE", "/api/delete", {"model": name})

    def has_blob(self, digest: str) -> bool:
        """Whether the store has the blob `sha256:<hex>`, by its name: the engine does not hash it again."""
        connection, response = self._request("HEAD", f"/api/blobs/{digest}", None, self.answer_seconds)
        connection.close()
        return response.status == 200

    def put_blob(self, digest: str, path: Path, on_sent: Callable[[int], None] | None = None) -> None:
        """Upload a file as the blob `sha256:<hex>`. `on_sent` hears the bytes sent so far."""

        def pieces() -> Iterator[bytes]:
            sent = 0
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    yield piece
                    sent += len(piece)
                    if on_sent is not None:
                        on_sent(sent)

        connection, response = self._request("POST", f"/api/blobs/{digest}", pieces(), None)
        try:
            self._raise_for(response)
        finally:
            connection.close()

    def _events(self, path: str, fields: dict[str, Any]) -> Iterator[PullEvent]:
        status = ""
        for line in self._stream(path, [json.dumps(fields).encode()], None):
            status = str(line.get("status", ""))
            yield PullEvent(status, line.get("digest"), line.get("total"), line.get("completed"))
        if status != "success":
            raise EngineError(
                f"{path} ended without `success`; its last word was: {status or 'nothing'}", "llmctl logs"
            )

    def _stream(self, path: str, body: Iterable[bytes], silence_seconds: float | None) -> Iterator[dict[str, Any]]:
        connection, response = self._request("POST", path, iter(body), silence_seconds)
        try:
            self._raise_for(response)
            while line := self._guard(lambda: response.readline(protocol.MAXIMUM_LINE_BYTES)):
                if line.strip():
                    yield protocol.parse_line(line)
        finally:
            connection.close()

    def _json(
        self,
        method: str,
        path: str,
        fields: dict[str, Any] | None = None,
        *,
        answer_seconds: float | None = -1.0,
    ) -> dict[str, Any]:
        body = None if fields is None else json.dumps(fields).encode()
        wait = self.answer_seconds if answer_seconds == -1.0 else answer_seconds
        connection, response = self._request(method, path, body, wait)
        try:
            self._raise_for(response)
            data = self._guard(lambda: response.read(protocol.MAXIMUM_BODY_BYTES))
        finally:
            connection.close()
        return protocol.parse_line(data) if data.strip() else {}

    def _request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None, answer_seconds: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_SECONDS)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._guard(connection.connect)
            connection.sock.settimeout(answer_seconds)
            self._send(connection, method, path, body, headers)
            return connection, self._guard(connection.getresponse)
        except BaseException:
            connection.close()
            raise

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> None:
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        try:
            connection.request(method, path, body=body, headers=headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            # The server may answer (too large, not found) and close before it has read the whole body.
            return
        except TimeoutError:
            raise ServerUnreachable(f"the server at {self.base_url} does not answer", "llmctl logs") from None

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ConnectionRefusedError:
            raise ServerNotRunning(f"no server at {self.base_url}", "llmctl up") from None
        except TimeoutError:
            raise ServerUnreachable(f"the server at {self.base_url} does not answer", "llmctl logs") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachable(f"lost the server at {self.base_url}: {reason}", "llmctl status") from None

    def _raise_for(self, response: http.client.HTTPResponse) -> None:
        if response.status >= 400:
            body = self._guard(lambda: response.read(1 << 20))
            raise protocol.error_from(response.status, body)
