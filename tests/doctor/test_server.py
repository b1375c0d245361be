"""The server: real ports, real signals, real processes, and a server that somebody else started."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartOllama
from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.guard.test_faults import Api
from tests.parts import machine, ollama
from tests.parts.engine import InstalledEngine
from tests.parts.ollama import OllamaServer

pytestmark = pytest.mark.real("ollama", "model")


def port_of(patient: Patient) -> int:
    return int(Path(patient.profile).read_text().partition("port: ")[2].partition(",")[0])


def edit(patient: Patient, before: str, after: str) -> None:
    path = Path(patient.profile)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def without_address(patient: Patient) -> None:
    edit(patient, f"host: 127.0.0.1, port: {port_of(patient)}, ", "")


def attach(patient: Patient, server: OllamaServer) -> None:
    """The profile means the server that somebody else started."""
    edit(patient, f"port: {port_of(patient)}", f"port: {server.port}")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runners(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if child.name() == "llama-server"]


def copied(engine: InstalledEngine, folder: Path) -> InstalledEngine:
    shutil.copytree(engine.root, folder, copy_function=os.link, symlinks=True)
    return replace(engine, root=folder)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@provokes("server.address-invalid", "server.host-without-port", "server.not-running", "server.held")
def test_before_anything_runs(patient: Patient) -> None:
    found = patient.finding("server.not-running", "--profile", patient.profile)
    assert found["severity"] == "error"
    assert found["remedy"] == {"text": "bring it up", "commands": [f"llmctl up {patient.profile}"], "safe": True}

    without_address(patient)
    patient.environ["OLLAMA_HOST"] = "http://127.0.0.1"
    report = patient.report("--profile", patient.profile)
    assert ids(report) == ["server.host-without-port"]
    assert report["findings"][0]["remedy"]["commands"] == ["export OLLAMA_HOST=http://127.0.0.1:11434"]

    patient.environ["OLLAMA_HOST"] = "https://127.0.0.1:11434"
    report = patient.report("server", "--profile", patient.profile)
    assert ids(report) == ["server.address-invalid"]
    assert "https" in report["findings"][0]["observed"]

    patient.environ["OLLAMA_HOST"] = f"127.0.0.1:{machine.free_port()}"
    assert patient("guard", "--hold", "10m").code == 0
    held = patient.finding("server.held", "--profile", patient.profile)
    assert "guard --hold" in held["observed"]


@provokes("server.port-taken")
def test_another_program_has_the_port(patient: Patient) -> None:
    def finding() -> str:
        found = patient.finding("server.port-taken", "--profile", patient.profile)
        assert f"kill {os.getpid()}" in found["remedy"]["commands"]
        return str(found["observed"])

    with socket.create_server(("127.0.0.1", port_of(patient))):
        assert f"pid {os.getpid()}" in finding()
    with http.server.HTTPServer(("127.0.0.1", port_of(patient)), http.server.SimpleHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        assert f"pid {os.getpid()}" in finding()
        web.shutdown()
    assert ids(patient.report("--profile", patient.profile)) == ["server.not-running"]


class Forwarder(http.server.BaseHTTPRequestHandler):
    """Hands on what a server elsewhere answers, as ssh -L and docker-proxy do."""

    def do_GET(self) -> None:
        answers = {"/api/version": {"version": "0.34.0"}, "/api/ps": {"models": []}, "/api/tags": {"models": []}}
        said = json.dumps(answers.get(self.path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


def test_what_listens_is_not_taken_for_the_server_that_answers_behind_it(patient: Patient) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", port_of(patient)), Forwarder) as forwarder:
        threading.Thread(target=forwarder.serve_forever, daemon=True).start()
        report = patient.report("--profile", patient.profile)
        forwarder.shutdown()
    unknown = {each["id"]: each["why"] for each in report["unknown"]}
    assert unknown["store.permissions"].startswith(f"the server is behind pid {os.getpid()} ")
    assert "behind a forwarder" in unknown["gpu.lost"]
    assert {"server.settings", "store.space", "security.origins"} <= unknown.keys()
    said = {finding["id"]: finding["remedy"]["commands"] for finding in report["findings"]}
    assert not said.keys() & {"server.settings", "server.foreign", "server.port-taken"}
    assert not any("--adopt" in command or "kill" in command for each in said.values() for command in each), said


@provokes("server.hangs", "server.stuck-runner", "server.crash-loop")
def test_what_hangs_and_what_ends(healthy: Patient) -> None:
    api = Api(healthy.cli)
    server, runner = api.server, api.runner
    question = {"model": api.alias, "prompt": "1", "options": {"num_predict": 1}}
    with paused(server):
        found = healthy.finding("server.hangs")
        assert f"kill -CONT {server}" in found["remedy"]["commands"]
        assert ids(healthy.report()) == ["server.hangs"]
    with paused(runner):
        found = healthy.finding("server.stuck-runner")
        assert f"kill -CONT {runner}" in found["remedy"]["commands"]
    assert healthy.fine("server.stuck-runner")
    assert healthy.fine("server.crash-loop")
    for _ in range(3):
        ended = api.runner
        healthy.cli.kill(ended)
        # A request before the server has reaped it loads the model anew without a line (llm/llama_server.go:1193).
        until(lambda pid=ended: not psutil.pid_exists(pid))
        api.post("/api/generate", question)
    found = healthy.finding("server.crash-loop")
    assert "3 times" in found["observed"]
    assert "signal: killed" in found["evidence"][0]
    # `down` is what a person asked for.
    assert healthy("down").code == 0
    assert healthy.finding("server.not-running")["severity"] == "warning"


@provokes("server.orphaned-runner")
def test_a_runner_whose_server_was_killed(healthy: Patient, ollama_server: StartOllama) -> None:
    other = ollama_server({"HOME": os.environ["HOME"]}, with_starter=True)
    other.post("/api/generate", {"model": "starter"})
    (orphan,) = runners(other.process.pid)
    try:
        assert healthy.fine("server.orphaned-runner")
        other.process.kill()
        other.process.wait()
        found = healthy.finding("server.orphaned-runner")
        assert found["remedy"]["commands"] == [f"kill {orphan}"]
        assert "MiB in memory" in found["observed"]
    finally:
        os.kill(orphan, signal.SIGKILL)

    api = Api(healthy.cli)
    mine = api.runner
    healthy.cli.kill(api.server)
    found = healthy.finding("server.not-running")
    assert any(f"pid {mine}" in line for line in found["evidence"])
    assert ids(healthy.report()) == ["server.not-running"]


@provokes("server.two-servers", "server.second")
def test_two_servers(patient: Patient, ollama_server: StartOllama) -> None:
    one = ollama_server({"HOME": os.environ["HOME"]}, with_starter=True)
    apart = ollama_server(with_starter=True)
    report = patient.report("--profile", patient.profile)
    found = report["findings"][0]
    assert found["id"] == "server.two-servers"
    assert f"kill {one.process.pid}" in found["remedy"]["commands"]
    assert not any(str(apart.process.pid) in line for line in found["evidence"])

    two = ollama_server({"HOME": os.environ["HOME"]})
    attach(patient, two)
    found = patient.finding("server.second", "--profile", patient.profile)
    assert found["remedy"]["commands"] == [f"kill {one.process.pid}"]


@provokes("server.foreign", "server.go-bool", "server.keep-alive", "server.settings", "server.version-differs")
def test_what_somebody_elses_server_lacks(patient: Patient, engine: InstalledEngine, tmp_path: Path) -> None:
    own = copied(engine, tmp_path / "theirs")
    environ = {"OLLAMA_FLASH_ATTENTION": "off", "OLLAMA_KEEP_ALIVE": "forever", "OLLAMA_CONTEXT_LENGTH": "4096"}
    server = ollama.start(own, tmp_path / "their-server", environ=environ)
    try:
        attach(patient, server)
        report = patient.report("server", "--profile", patient.profile)
        by_id = {finding["id"]: finding for finding in report["findings"]}
        assert by_id.keys() == {"server.foreign", "server.go-bool", "server.keep-alive"}
        assert "OLLAMA_FLASH_ATTENTION=off" in by_id["server.go-bool"]["observed"]
        assert any("OLLAMA_FLASH_ATTENTION=0" in line for line in by_id["server.go-bool"]["remedy"]["commands"])
        assert "5m" in by_id["server.keep-alive"]["observed"]
        assert f"kill {server.process.pid}" in by_id["server.foreign"]["remedy"]["commands"]

        assert patient.fine("server.version-differs", "--profile", patient.profile)
        own.ollama.unlink()
        found = patient.finding("server.version-differs", "--profile", patient.profile)
        assert str(own.ollama) in found["observed"]
    finally:
        server.stop()

    server = ollama.start(engine, tmp_path / "another", environ={"OLLAMA_CONTEXT_LENGTH": "4096"})
    try:
        edit(patient, f"port: {port_of(patient)}", f"port: {server.port}")
        found = patient.finding("server.settings", "--profile", patient.profile)
        assert "OLLAMA_CONTEXT_LENGTH is 4096" in found["observed"]
        assert "OLLAMA_CONTEXT_LENGTH=2048" in found["expected"]
        assert "OLLAMA_KEEP_ALIVE" not in found["observed"]
        edit(patient, "context: 2048", "context: 2048, parallel: 3")
        found = patient.finding("server.settings", "--profile", patient.profile)
        assert "OLLAMA_NUM_PARALLEL=3" in found["expected"]
    finally:
        server.stop()


WRAPPER = """\
#!/bin/sh
set -- $(echo " $* " | sed 's/ --cache-type-k q8_0 / --cache-type-k f16 /; s/ --flash-attn on / --flash-attn auto /')
exec {real} "$@"
"""


@provokes("server.kv-cache", "server.flash-attention")
def test_a_runner_that_was_started_with_other_arguments(
    patient: Patient, engine: InstalledEngine, tmp_path: Path
) -> None:
    own = copied(engine, tmp_path / "wrapped")
    real, wrapped = own.libraries / "real" / "llama-server", own.libraries / "llama-server"
    real.parent.mkdir()
    wrapped.rename(real)
    wrapped.write_text(WRAPPER.format(real=real))
    wrapped.chmod(0o755)
    patient.cli.environ["LLMCTL_ENGINE"] = str(own.ollama)
    patient.environ["LD_LIBRARY_PATH"] = str(own.libraries)
    edit(patient, "context: 2048", "context: 2048, kv_cache: q8_0, flash_attention: on")
    patient.up()
    assert "f16" in patient.finding("server.kv-cache")["observed"]
    found = patient.finding("server.flash-attention")
    assert "auto" in found["observed"]
    assert found["expected"].startswith("on")


@provokes("server.context", "server.slots-cut")
def test_what_the_server_cut(patient: Patient) -> None:
    # Of this family Ollama takes one request at a time; it reads the family of the config, which it does not hash.
    for blob in (Path(patient.cli.environ["OLLAMA_MODELS"]) / "blobs").iterdir():
        content = blob.read_bytes() if blob.stat().st_size < 4096 else b""
        if b'"model_family":"gemma3"' in content:
            blob.unlink()
            blob.write_bytes(content.replace(b'"gemma3"', b'"lfm2"'))
    # The model was made for 32,768 tokens.
    edit(patient, "context: 2048", "context: 33000, parallel: 2")
    assert patient("up", patient.profile, "--yes").code == 5
    report = patient.report()
    by_id = {finding["id"]: finding for finding in report["findings"]}
    assert "32,768" in by_id["server.context"]["observed"]
    assert "n_ctx_train=32768" in by_id["server.context"]["evidence"][0]
    cut = by_id["server.slots-cut"]
    assert cut["observed"].startswith("1 slot:")
    assert any("parallel requests" in line for line in cut["evidence"])
    assert "model.wrong-context" not in by_id
