"""A small model registry on loopback: real HTTP, what `ollama pull` needs, and switches for what goes wrong.

`ollama pull` wants a Location with a blob's 200 (or a 307) and then asks it for ranges (facts/ollama.md, the
store and registry part); Python's own server has no ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
PIECE_BYTES = 1 << 16
Fault = Literal[
    "login", "token", "elsewhere", "forbidden", "missing", "too_old", "busy", "failing", "unavailable",
    "page", "broken", "text", "huge", "truncated", "stall", "reset", "loop", "unencrypted",
]  # fmt: skip
BlobFault = Literal[
    "missing", "failing", "page", "nowhere", "whole",
    "truncated", "stall", "reset", "trickle", "short", "long", "flipped",
    "login", "token", "too_old", "busy", "later", "someday", "loop", "shifted",
]  # fmt: skip


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """`fault` spoils manifests, `blob_fault` the bytes of blobs: of `spoiled` alone where that is set, and no more
    than `blob_faults_left` times. `elsewhere` is where "unencrypted" leads, `announced` every manifest's digest;
    `moves` is what manifests become once they were asked for. `asked` is every request line since the start, `sent`
    counts the bytes of each blob that went out, and `streamed` is called with each digest as they do."""

    host: str = ""
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Path] = field(default_factory=dict)
    folder: Path = Path()
    fault: Fault | None = None
    blob_fault: BlobFault | None = None
    blob_faults_left: int | None = None
    spoiled: str = ""
    announced: str = ""
    elsewhere: str = ""
    redirects: bool = False
    token: str = "open"
    moves: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    streamed: Callable[[str], None] = lambda _: None
    released: threading.Event = field(default_factory=threading.Event)

    def name(self, model: str) -> str:
        return f"{self.host}/library/{model}"

    def add(self, model: str, weights: Path, weights_digest: str, file_type: str = "Q4_K_M", template: str = "") -> str:
        """Publish a GGUF file as `model` (name:tag). Returns the manifest's digest."""
        name, _, tag = model.partition(":")
        config = json.dumps({"model_format": "gguf", "model_family": "gemma3", "file_type": file_type}).encode()
        layers = [{"mediaType": "application/vnd.ollama.image.model"} | self._blob(weights_digest, weights)]
        if template:
            layers.append({"mediaType": "application/vnd.ollama.image.template"} | self._bytes(template.encode()))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE} | self._bytes(config),
            "layers": layers,
        }
        content = json.dumps(manifest, separators=(",", ":")).encode()
        self.manifests[f"{name}/{tag or 'latest'}"] = content
        return digest_of(content)

    def blob_fault_of(self, digest: str, *, use: bool) -> BlobFault | None:
        """The fault of an answer about this blob; `use` counts it where faults are counted."""
        if self.blob_fault is None or self.spoiled not in {"", digest}:
            return None
        if use and self.blob_faults_left is not None:
            self.blob_faults_left -= 1
            if self.blob_faults_left < 0:
                return None
        return self.blob_fault

    def _blob(self, digest: str, path: Path) -> dict[str, object]:
        self.blobs[digest] = path
        return {"digest": digest, "size": path.stat().st_size}

    def _bytes(self, content: bytes) -> dict[str, object]:
        path = self.folder / digest_of(content).replace(":", "-")
        path.write_bytes(content)
        return self._blob(digest_of(content), path)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.registry.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        with suppress(BrokenPipeError, ConnectionResetError):
            if self.path.startswith("/token"):
                answer = json.dumps({"token": self.registry.token}).encode()
                self._send(200, answer, {"Content-Type": "application/json"})
            elif found := re.fullmatch(r"/v2/library/([^/]+)/manifests/([^/?]+)", self.path):
                self._manifest("/".join(found.groups()))
            elif found := re.fullmatch(r"/(?:v2/library/[^/]+/blobs|data)/(sha256:[0-9a-f]{64})", self.path):
                self._blob(found.group(1))
            else:
                self._send(404, b"{}")

    def _manifest(self, key: str) -> None:
        content = self.registry.manifests.get(key)
        fault = self.registry.fault
        page = b"<!DOCTYPE html><html><body>Please log in to the hotel's network</body></html>"
        if fault == "token" and self.headers.get("Authorization") == "Bearer open":
            fault = None
        challenge = f'Bearer realm="http://{self.registry.host}/token",service="r",scope="repository:m:pull"'
        spoiled: dict[str | None, tuple[int, bytes, dict[str, str]]] = {
            "login": (401, b"{}", {}),
            "token": (401, b"{}", {"WWW-Authenticate": challenge}),
            "elsewhere": (401, b"{}", {"WWW-Authenticate": challenge.replace("127.0.0.1", "localhost")}),
            "forbidden": (403, b"{}", {}),
            "failing": (500, b"oh no", {}),
            "unavailable": (503, b"", {"Retry-After": "5"}),
            "text": (200, b"certainly, here is your model", {"Content-Type": "text/plain"}),
            "unencrypted": (302, b"", {"Location": f"{self.registry.elsewhere}{self.path}"}),
            "missing": (404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', {}),
            "too_old": (412, b'{"errors":[{"message":"requires a newer version of Ollama"}]}', {}),
            "busy": (429, b"{}", {"Retry-After": "17"}),
            "page": (200, page, {"Content-Type": "text/html; charset=utf-8"}),
            "broken": (200, b'{"schemaVersion":2}', {}),
            "loop": (302, b"", {"Location": self.path}),
            "huge": (200, b" " * (5 << 20), {}),
        }
        if fault == "reset":
            self._reset()
        elif fault in {"truncated", "stall"} and content is not None:
            self._cut(content, len(content) // 2, stall=fault == "stall")
        elif fault in spoiled:
            self._send(*spoiled[fault])
        elif content is None:
            self._send(404, b"{}")
        else:
            # Before the answer: who has it may set the next one.
            if key in self.registry.moves:
                self.registry.manifests[key] = self.registry.moves.pop(key)
            self._send(
                200,
                content,
                {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": self.registry.announced or digest_of(content)},
            )

    def _blob(self, digest: str) -> None:
        path = self.registry.blobs.get(digest)
        wanted = self.headers.get("Range", "")
        # Ollama asks without a range only to learn the Location, and leaves the body unread.
        asks_where = not wanted and self.headers.get("User-Agent", "").startswith("ollama/")
        fault = self.registry.blob_fault_of(digest, use=self.command == "GET" and not asks_where)
        challenge = f'Bearer realm="http://{self.registry.host}/token",service="r",scope="repository:m:pull"'
        refusals: dict[str | None, tuple[int, dict[str, str]]] = {
            "missing": (404, {}),
            "failing": (500, {}),
            "login": (401, {}),
            "token": (401, {"WWW-Authenticate": challenge}),
            "too_old": (412, {}),
            "busy": (429, {"Retry-After": "170"}),
            "later": (429, {"Retry-After": "0"}),
            # Beyond the last day that has a number.
            "someday": (429, {"Retry-After": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}),
            "loop": (302, {"Location": self.path}),
        }
        if fault == "token" and self.headers.get("Authorization") == "Bearer open":
            fault = None
        if path is None or fault in refusals:
            status, extra = refusals.get(fault, (404, {}))
            self._send(status, b"{}", extra)
            return
        if fault == "page" and self.command == "GET":
            self._send(200, b"<html>log in to the network</html>", {"Content-Type": "text/html"})
            return
        size = path.stat().st_size + {"short": -1, "long": 1}.get(fault or "", 0)
        first, last, status = 0, size - 1, 200
        if fault == "whole":
            wanted = ""
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted):
            first, last, status = int(found.group(1)), min(int(found.group(2) or last), last), 206
        elif self.registry.redirects and self.command == "GET" and not self.path.startswith("/data/"):
            # To another host name of the same machine, as a registry in front of a CDN does.
            other = self.registry.host.replace("127.0.0.1", "localhost")
            self._send(307, b"", {"Location": f"http://{other}/data/{digest}"})
            return
        headers = {"Location": self.path, "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
        if fault == "nowhere":
            del headers["Location"]
        if status == 206:
            shift = 1 if fault == "shifted" else 0
            headers["Content-Range"] = f"bytes {first + shift}-{last}/{size}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if asks_where:
            self.close_connection = True
            return
        self._stream(digest, path, first, last + 1, fault)

    def _stream(self, digest: str, path: Path, first: int, end: int, fault: BlobFault | None) -> None:
        middle = path.stat().st_size // 2
        piece_bytes = 4096 if fault == "trickle" else PIECE_BYTES
        with path.open("rb") as file:
            file.seek(first)
            position = first
            while position < end:
                if fault in {"truncated", "stall", "reset"} and position - first >= (end - first) // 2:
                    self._break_off(fault)
                    return
                wanted = min(piece_bytes, end - position)
                piece = bytearray(file.read(wanted).ljust(wanted, b"\0"))
                if fault == "flipped" and position <= middle < position + wanted:
                    piece[middle - position] ^= 1
                # Counted before: who has all of it may ask at once.
                self.registry.sent[digest] += wanted
                self.wfile.write(piece)
                if fault == "trickle":
                    time.sleep(0.001)
                self.registry.streamed(digest)
                position += wanted

    def _break_off(self, fault: BlobFault | None) -> None:
        if fault == "reset":
            self._reset()
        elif fault == "stall":
            self.wfile.flush()
            self.registry.released.wait(60)
        self.close_connection = True

    def _reset(self) -> None:
        """End the connection as a crashed machine does: with a reset instead of an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _cut(self, content: bytes, at: int, *, stall: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:at])
        self.wfile.flush()
        if stall:
            self.registry.released.wait(60)
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[Registry]:
    """A registry on a free port, without models. `folder` takes its small blobs. With `tls` over https."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(folder=folder)
    server = ThreadingHTTPServer((address, 0), type("Answer", (_Answer,), {"registry": registry}))
    server.daemon_threads = True
    if tls is not None:
        # The handshake is the answering thread's, or one client that sends nothing would keep all others waiting.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry.host = f"{address}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
