"""Who may reach a server and what it gives away: real servers, sockets, modes and environments."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartOllama
from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import complete, provokes
from tests.parts import machine, ollama
from tests.parts.engine import InstalledEngine
from tests.parts.ollama import OllamaServer
from tests.parts.systemd import Container
from tests.service.conftest import (  # noqa: F401 - fixtures
    bound,
    container,
    shared,
    start_container,
)
from tests.service.installing import service

pytestmark = pytest.mark.real("ollama")
PASSWORD = "correct-horse"


class Beside:
    """llmctl beside a server that somebody else started."""

    def __init__(self, patient: Patient, server: OllamaServer) -> None:
        self.patient = patient
        self.server = server
        patient.environ["OLLAMA_HOST"] = server.url
        path = Path(patient.profile)
        kept = [line for line in path.read_text().splitlines() if not line.startswith("server:")]
        path.write_text("\n".join([*kept, "server: {context: 2048}"]) + "\n")

    def report(self) -> dict[str, Any]:
        return self.patient.report("security", "--profile", self.patient.profile)

    def finding(self, check: str) -> dict[str, Any]:
        return self.patient.finding(check, "--profile", self.patient.profile)


@pytest.mark.real("model")
@provokes("security.bound-wide", "security.origins", "security.cloud", "security.bodies-logged")
def test_a_server_that_is_open_in_every_way(
    patient: Patient, ollama_server: StartOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Beside(patient, ollama_server())
    assert ids(plain.report()) == []
    port = machine.free_port()
    monkeypatch.setattr(machine, "free_port", lambda: port)
    server = ollama_server(
        {
            "OLLAMA_HOST": f"0.0.0.0:{port}",
            "OLLAMA_ORIGINS": "https://chat.example,http://*",
            "OLLAMA_NO_CLOUD": "0",
            "OLLAMA_DEBUG_LOG_REQUESTS": "1",
            "TMPDIR": str(tmp_path),
        }
    )
    open_to_all = Beside(patient, server)
    report = open_to_all.report()
    found = {finding["id"]: finding for finding in report["findings"]}
    assert {name: finding["severity"] for name, finding in found.items()} == {
        "security.bound-wide": "error",
        "security.origins": "error",
        "security.cloud": "warning",
        "security.bodies-logged": "warning",
    }
    wide_open = found["security.bound-wide"]
    assert f"port {port} is open at" in wide_open["observed"]
    kill, start = wide_open["remedy"]["commands"]
    assert kill == f"kill {server.process.pid}"
    assert start.startswith(f"OLLAMA_HOST=127.0.0.1:{port} ")
    assert start.endswith(" ollama serve")
    assert "http://*" in found["security.origins"]["observed"]
    assert "chat.example" not in found["security.origins"]["observed"]


@pytest.mark.real("model")
@provokes("security.proxy-password")
def test_a_proxy_with_a_password_is_told_of_and_not_shown(patient: Patient) -> None:
    proxy = f"http://someone:{PASSWORD}@127.0.0.1:9"
    patient.environ |= {"HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
    patient.up()
    done = patient("doctor", "--json")
    assert PASSWORD not in done.out + done.err
    found = patient.finding("security.proxy-password")
    assert found["subject"] == "HTTPS_PROXY"
    assert "unset HTTPS_PROXY" in found["remedy"]["commands"]


@pytest.mark.real("model")
@provokes("security.store-writable")
def test_a_store_that_anybody_may_write_to(patient: Patient) -> None:
    store = Path(patient.cli.environ["OLLAMA_MODELS"])
    (store / "blobs").chmod(0o777)
    blob = next((store / "blobs").iterdir())
    shutil.copyfile(blob, copy := blob.with_name("copy"))
    copy.replace(blob)
    blob.chmod(0o666)
    found = patient.finding("security.store-writable", "--profile", patient.profile)
    assert found["evidence"] == [str(store / "blobs"), str(blob)]
    (store / "blobs").chmod(0o1777)
    blob.chmod(0o644)
    assert patient.fine("security.store-writable", "--profile", patient.profile)


def saying(engine: InstalledEngine, folder: Path, version: str) -> InstalledEngine:
    """The same engine, which says that it is another release of as many letters."""
    prefix = folder / f"engine-{version}"
    shutil.copytree(engine.root, prefix, copy_function=os.link, symlinks=True)
    program = prefix / "bin" / "ollama"
    content = program.read_bytes()
    program.unlink()
    assert len(version) == len(engine.version)
    program.write_bytes(content.replace(engine.version.encode(), version.encode()))
    program.chmod(0o755)
    return replace(engine, root=prefix)


@pytest.mark.real("model")
@provokes("security.cve")
def test_an_engine_with_known_faults(
    patient: Patient, engine: InstalledEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real engine of the newest release whose version was overwritten in its program: none so old runs here."""
    server = ollama.start(saying(engine, tmp_path, "0.32.9"), tmp_path / "one")
    try:
        old = Beside(patient, server)
        assert server.get("/api/version") == {"version": "0.32.9"}
        found = old.finding("security.cve")
        assert (found["severity"], found["subject"]) == ("warning", "Ollama 0.32.9")
        assert "0.32.10" in found["expected"]
        assert "0.32.10" in " ".join(found["evidence"])
    finally:
        server.stop()
    port = machine.free_port()
    monkeypatch.setattr(machine, "free_port", lambda: port)
    server = ollama.start(saying(engine, tmp_path, "0.17.0"), tmp_path / "two", environ={"OLLAMA_HOST": f":{port}"})
    try:
        found = Beside(patient, server).finding("security.cve")
        assert found["severity"] == "error"
        assert any("CVE-2026-7482" in line for line in found["evidence"])
    finally:
        server.stop()


@pytest.mark.real("systemd", "model")
@provokes("security.proxy-password", "security.state-readable", "security.bound-wide")
def test_the_service_of_the_machine(container: Container) -> None:  # noqa: F811
    made = service(container)
    secret = f"http://me:{PASSWORD}@127.0.0.1:9"
    installed = made.install(environ={"HTTPS_PROXY": secret})
    assert installed.code == 0, installed.err
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err

    def report() -> list[dict[str, Any]]:
        done = made.llmctl("doctor", "security", "--json")
        assert PASSWORD not in done.out
        found: list[dict[str, Any]] = json.loads(done.out)["findings"]
        for each in found:
            complete(each)
        return found

    assert report() == []
    container.run("chmod", "755", "/etc/llmctl/credentials")
    container.run("chmod", "644", "/etc/llmctl/credentials/HTTPS_PROXY")
    (found,) = report()
    assert (found["id"], found["subject"]) == ("security.state-readable", "/etc/llmctl/credentials/HTTPS_PROXY")
    container.run("chmod", "700", "/etc/llmctl/credentials")
    assert report() == []
    made.add_to_engine("[Service]", f"Environment=HTTP_PROXY={secret}", f"Environment=OLLAMA_HOST=0.0.0.0:{made.port}")
    container.run("systemctl", "restart", "llmctl-engine.service")
    container.wait(lambda: made.llmctl("status", "--json").json["state"] == "running", 60, "the server")
    wide, password = report()
    assert wide["id"] == "security.bound-wide"
    assert wide["remedy"]["commands"][0] == "sudo systemctl edit llmctl-engine.service"
    assert (password["id"], password["subject"]) == ("security.proxy-password", "llmctl-engine.service")
