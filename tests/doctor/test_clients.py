"""What clients do, told by the log of a real server."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.guard.test_faults import Api

pytestmark = pytest.mark.real("ollama", "model")

SECRET = "swordfish"


def ask(api: Api, path: str, body: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=240)
    try:
        connection.request("POST", path, json.dumps({"model": api.alias, "stream": False} | body))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@provokes(
    "clients.keep-alive-string", "clients.embeddings", "clients.truncated", "clients.keep-alive", "clients.reloads"
)
def test_what_clients_left_in_the_log(healthy: Patient) -> None:
    api = Api(healthy.cli)
    one = {"prompt": "x", "options": {"num_predict": 1}}

    assert ask(api, "/api/generate", {"prompt": SECRET, "keep_alive": "-1"}) == 400
    found = healthy.finding("clients.keep-alive-string")
    assert found["observed"].startswith("1 request ")
    assert "POST /api/generate" in found["evidence"][0]

    assert ask(api, "/api/embed", {"input": SECRET}) == 501
    assert "/api/embed" in healthy.finding("clients.embeddings")["evidence"][0]

    assert ask(api, "/api/generate", {"prompt": f"{SECRET} " * 3000, "options": {"num_predict": 1}}) == 200
    found = healthy.finding("clients.truncated")
    assert found["observed"].startswith("1 prompt was cut")
    assert "limit=" in found["evidence"][0]

    assert healthy.fine("clients.keep-alive")
    assert ask(api, "/api/generate", one | {"keep_alive": 300}) == 200
    assert "min" in healthy.finding("clients.keep-alive")["observed"]

    assert ask(api, "/api/generate", one | {"options": {"num_predict": 1, "num_ctx": 512}}) == 200
    report = healthy.report()
    assert "clients.reloads" not in ids(report), "one is no storm"
    for context in (1024, 512):
        assert ask(api, "/api/generate", one | {"options": {"num_predict": 1, "num_ctx": context}}) == 200
    report = healthy.report()
    storm = report["findings"][0]
    assert storm["id"] == "clients.reloads"
    assert "512, 1024" in storm["observed"]
    assert "model.wrong-context" not in ids(report)
    assert SECRET not in json.dumps(report)
