"""An `llmctl` on PATH that knows some models, for the shells to complete."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from llmctl.commands import names

CHECKOUT = Path(__file__).parents[2]
MODELS = ["gemma3:270m-q4_K_M", "gemma3:1b-it-q4_K_M", "qwen3:8b-q4_K_M", "hf.co/someone/model:Q4_K_M"]


@pytest.fixture
def llmctl_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`llmctl`, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "llmctl"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m llmctl "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return command


@pytest.fixture
def tags_server() -> Iterator[Callable[[list[str]], str]]:
    """A server whose /api/tags lists the names given; its host and port."""
    servers: list[ThreadingHTTPServer] = []

    def start(names: list[str]) -> str:
        class Tags(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"models": [{"name": name} for name in names]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Tags)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(tags_server: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Some models, and the alias of a pinned one, at the address that the environment names.

    The patience of a Tab is made longer: a machine that is busy with other tests must not decide the outcome.
    """
    monkeypatch.setattr(names, "ANSWER_SECONDS", 60.0)
    monkeypatch.setenv("OLLAMA_HOST", tags_server([*MODELS, "llmctl/gemma3:0123456789ab"]))
    return MODELS


@pytest.fixture
def known(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same models, from the profile in force; no server runs."""
    profile = home / "own.yaml"
    models = "".join(f"  - name: {name}\n" for name in MODELS)
    profile.write_text(f"schema: 1\nserver: {{max_loaded: {len(MODELS)}}}\nmodels:\n{models}")
    monkeypatch.setenv("LLMCTL_PROFILE", str(profile))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return MODELS
