"""Another program has the port, and speaks HTTP."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from llmctl.client import Client
from llmctl.errors import ServerUnreachable
from llmctl.server import answering


@pytest.fixture(params=[HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.OK])
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """A web server that answers everything with one status and a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<!DOCTYPE HTML><html>a page</html>"
            self.send_response(request.param)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_is_no_ollama(stranger: str) -> None:
    with pytest.raises(ServerUnreachable):
        answering(Client(stranger))
