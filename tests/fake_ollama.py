"""A small HTTP server that answers as `ollama serve` does, for what the real one cannot be made to do on demand.

It cannot drift: tests/contract runs the same tests against it and against the real server. Tokens are words here.
A test changes its state (`models`, `blobs`, `context`), holds a load back (`load_gate`), or scripts the next answers
of a path (`script`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW = "2026-01-02T03:04:05.678901234Z"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
NATURAL_END = 12
Json = dict[str, Any]


@dataclass
class Reply:
    """One scripted answer. `lines` is a stream; a str or bytes among them goes out as it is. With `cut` the connection
    drops in the middle of the stream; `hold` keeps the stream open after its lines until it is set."""

    status: int = 200
    body: bytes | Json | None = None
    lines: list[Json | str | bytes] | None = None
    cut: bool = False
    hold: threading.Event | None = None


@dataclass
class FakeModel:
    weights: str
    size: int = 253_113_024
    template: str = "{{ .Prompt }}"

    @property
    def digest(self) -> str:
        """Of the manifest: a copy has the same, other weights or another template do not."""
        return hashlib.sha256(f"{self.weights} {self.template}".encode()).hexdigest()

    @property
    def details(self) -> Json:
        return {"format": "gguf", "family": "gemma3", "quantization_level": "Q4_K_M", "parameter_size": "268.10M"}


def full_name(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass
class FakeOllama:
    """State and rules. `requests` keeps (method, path, body) of every request, in order of arrival."""

    port: int = 0
    context: int = 2048
    version: str = "0.34.0"
    size_vram: int = 0
    models: dict[str, FakeModel] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)  # weights -> the name that loaded them
    blobs: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, Json]] = field(default_factory=list)
    load_gate: threading.Event = field(default_factory=threading.Event)
    scripts: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, path: str, *replies: Reply) -> None:
        """The next answers of `path`, one request each; after them the rules hold again."""
        self.scripts[path].extend(replies)

    def answer(self, method: str, path: str, body: Json) -> Reply:
        self.requests.append((method, path, body))
        if self.scripts[path]:
            return self.scripts[path].popleft()
        rule = ROUTES.get((method, path))
        if rule is None:
            known = any(path == other for _, other in ROUTES)
            return Reply(405 if known else 404, b"405 method not allowed" if known else b"404 page not found")
        return rule(self, body)

    def not_found(self, name: str) -> Reply:
        return Reply(404, {"error": f"model '{name}' not found"})

    def get_version(self, _: Json) -> Reply:
        return Reply(body={"version": self.version})

    def get_status(self, _: Json) -> Reply:
        return Reply(body={"cloud": {"disabled": True, "source": "env"}})

    def tags(self, _: Json) -> Reply:
        entries = [
            {"name": name, "model": name, "modified_at": NOW, "size": m.size, "digest": m.digest, "details": m.details}
            for name, m in self.models.items()
        ]
        return Reply(body={"models": entries})

    def ps(self, _: Json) -> Reply:
        entries = []
        for name in self.loaded.values():
            model = self.models[name]
            entries.append(
                {
                    "name": name,
                    "model": name,
                    "size": self.size_vram,
                    "digest": model.digest,
                    "details": model.details,
                    "expires_at": "2318-01-01T00:00:00Z",
                    "size_vram": self.size_vram,
                    "context_length": self.context,
                }
            )
        return Reply(body={"models": entries})

    def show(self, body: Json) -> Reply:
        model = self.models.get(full_name(body["model"]))
        if model is None:
            return self.not_found(body["model"])
        modelfile = f"FROM /models/blobs/sha256-{model.weights}\nTEMPLATE {model.template}\n"
        info = {"general.architecture": "gemma3", "general.file_type": 15}
        return Reply(
            body={"modelfile": modelfile, "template": model.template, "details": model.details} | {"model_info": info}
        )

    def copy(self, body: Json) -> Reply:
        source = self.models.get(full_name(body["source"]))
        if source is None:
            return self.not_found(body["source"])
        self.models[full_name(body["destination"])] = source
        return Reply()

    def delete(self, body: Json) -> Reply:
        if self.models.pop(full_name(body["model"]), None) is None:
            return self.not_found(body["model"])
        return Reply()

    def create(self, body: Json) -> Reply:
        weights = self._weights(body)
        if weights is None:
            return Reply(400, {"error": "neither 'from' or 'files' was specified"})
        template = body.get("template") or "{{ .Prompt }}"
        self.models[full_name(body["model"])] = FakeModel(weights, template=template)
        says = ["parsing GGUF", f"using existing layer sha256:{weights}", "writing manifest", "success"]
        return Reply(lines=[{"status": status} for status in says])

    def _weights(self, body: Json) -> str | None:
        if source := self.models.get(full_name(body.get("from") or "")):
            return source.weights
        files = body.get("files") or {}
        return next((digest.removeprefix("sha256:") for digest in files.values()), None)

    def pull(self, body: Json) -> Reply:
        """The registry is never there, which ollama says under HTTP 200."""
        refused = f'pull model manifest: Get "http://{body["model"]}": dial tcp: connect: connection refused'
        return Reply(lines=[{"status": "pulling manifest"}, {"error": refused}])

    def generate(self, body: Json) -> Reply:
        if not body:
            return Reply(400, {"error": "missing request body"})
        keep_alive = body.get("keep_alive")
        if isinstance(keep_alive, str) and keep_alive.lstrip("-").isdigit() and keep_alive != "0":
            return Reply(400, {"error": f'time: missing unit in duration "{keep_alive}"'})
        name = full_name(body["model"])
        model = self.models.get(name)
        if model is None:
            return self.not_found(body["model"])
        if body.get("think"):
            return Reply(400, {"error": f'"{body["model"]}" does not support thinking'})
        if not body.get("prompt") and keep_alive == 0:
            self.loaded.pop(model.weights, None)
            return self._only(name, "unload")
        self.load_gate.wait()
        self.loaded.setdefault(model.weights, name)
        return self._answer(name, body) if body.get("prompt") else self._only(name, "load")

    def _only(self, name: str, reason: str) -> Reply:
        return Reply(body={"model": name, "created_at": NOW, "response": "", "done": True, "done_reason": reason})

    def _answer(self, name: str, body: Json) -> Reply:
        tokens = len(body["prompt"].split()) + 1
        if tokens > self.context and body.get("truncate") is False:
            return Reply(400, {"error": json.dumps({"error": overflow(tokens, self.context)})})
        # Without truncate:false the middle of the prompt is dropped, and nothing but this count says so.
        evaluated = tokens if tokens <= self.context else self.context // 2 + 3
        asked = (body.get("options") or {}).get("num_predict", -1)
        count = NATURAL_END if asked < 0 else min(asked, NATURAL_END)
        head = {"model": name, "created_at": NOW}
        lines: list[Json | str | bytes] = [head | {"response": " word", "done": False} for _ in range(count)]
        final = head | {"response": "", "done": True, "done_reason": "length" if count < NATURAL_END else "stop"}
        figures = {"total_duration": 9_000_000, "load_duration": 1_000_000, "prompt_eval_count": evaluated}
        figures |= {"prompt_eval_duration": 3_000_000, "eval_count": count, "eval_duration": 5_000_000 * count}
        # A figure of zero is left out.
        final |= {key: value for key, value in figures.items() if value}
        if body.get("stream") is False:
            return Reply(body=final | {"response": " word" * count})
        return Reply(lines=[*lines, final])


def overflow(tokens: int, context: int) -> Json:
    """The runner's own error, which ollama passes on as a string of JSON."""
    message = f"request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
    sizes = {"n_prompt_tokens": tokens, "n_ctx": context}
    return {"code": 400, "message": message, "type": "exceed_context_size_error"} | sizes


ROUTES = {
    ("GET", "/api/version"): FakeOllama.get_version,
    ("GET", "/api/status"): FakeOllama.get_status,
    ("GET", "/api/tags"): FakeOllama.tags,
    ("GET", "/api/ps"): FakeOllama.ps,
    ("POST", "/api/show"): FakeOllama.show,
    ("POST", "/api/copy"): FakeOllama.copy,
    ("DELETE", "/api/delete"): FakeOllama.delete,
    ("POST", "/api/create"): FakeOllama.create,
    ("POST", "/api/pull"): FakeOllama.pull,
    ("POST", "/api/generate"): FakeOllama.generate,
}


class Exchange(BaseHTTPRequestHandler):
    """HTTP/1.1 as Go's server speaks it: chunked both ways."""

    protocol_version = "HTTP/1.1"
    fake: FakeOllama

    def do_any(self) -> None:
        # The client may leave in the middle of its request, or before the answer: a cancelled generation.
        with suppress(ConnectionError):
            self._exchange()

    def _exchange(self) -> None:
        body = self._read()
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in {"127.0.0.1", "localhost"}:
            self._whole(Reply(403))
        elif self.path.startswith("/api/blobs/"):
            self._whole(self._blob(self.path.rpartition("/")[2], body))
        else:
            parsed = json.loads(body) if body.strip() else {}
            self._send(self.fake.answer(self.command, self.path, parsed))

    do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = do_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent: what was asked is in `requests`."""

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := self._size():
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _size(self) -> int:
        line = self.rfile.readline()
        if not line:
            self.close_connection = True
            raise ConnectionResetError
        return int(line, 16)

    def _blob(self, digest: str, body: bytes) -> Reply:
        have = digest in self.fake.blobs
        if self.command == "HEAD":
            return Reply(200 if have else 404)
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if found != digest:
            return Reply(400, {"error": f'digest mismatch, expected "{digest}", got "{found}"'})
        self.fake.blobs.add(digest)
        return Reply(200 if have else 201)

    def _send(self, reply: Reply) -> None:
        self._whole(reply) if reply.lines is None else self._stream(reply)

    def _whole(self, reply: Reply) -> None:
        data = json.dumps(reply.body).encode() if isinstance(reply.body, dict) else reply.body or b""
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in reply.lines or []:
            text = json.dumps(line) + "\n" if isinstance(line, dict) else line
            data = text.encode() if isinstance(text, str) else text
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if reply.hold is not None:
            reply.hold.wait()
        if reply.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def running(fake: FakeOllama | None = None) -> Iterator[FakeOllama]:
    """The fake on a loopback port that the kernel chooses; loads do not wait until a test closes `load_gate`."""
    fake = fake or FakeOllama()
    fake.load_gate.set()
    server = Server(("127.0.0.1", 0), type("BoundExchange", (Exchange,), {"fake": fake}))
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.load_gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
