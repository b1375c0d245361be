"""The service on a real systemd: what is done to its units, and what doctor says of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import ids
from tests.doctor.proving import complete, provokes, root_of
from tests.parts.engine import InstalledEngine
from tests.service.conftest import (  # noqa: F401 - fixtures
    ENGINE,
    Ask,
    ContainerGpu,
    StartContainer,
    ask,
    bound,
    container,
    container_nvml,
    shared,
    start_container,
)
from tests.service.faults.conftest import prepared
from tests.service.faults.served import Served
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET, Service, service
from tests.service.test_install import install_ollama

pytestmark = pytest.mark.real("systemd", "ollama", "model")

UNITS = "/etc/systemd/system"
# The tests' own drop-in, with which the guard looks more often, changes nothing that the profile decides.
FAMILY = "service"


@dataclass
class Machine:
    """A container with llmctl's service, and doctor in it."""

    service: Service

    def report(self, *arguments: str, user: str | None = None, environ: Mapping[str, str] | None = None) -> Any:
        done = self.service.llmctl("doctor", "--json", *arguments, user=user, environ=environ)
        assert done.out, done.err
        report = done.json
        assert done.code == (5 if report["verdict"] == "errors" else 0), done.out
        for finding in report["findings"]:
            complete(finding)
        return report

    def finding(
        self, check: str, *arguments: str, user: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Any:
        report = self.report(*arguments, user=user, environ=environ)
        found = [finding for finding in report["findings"] if finding["id"] == check]
        assert found, (ids(report), report["unknown"], report["skipped"])
        return found[0]

    def fine(self) -> None:
        report = self.report(FAMILY)
        assert (ids(report), report["unknown"], report["skipped"]) == ([], [], [])

    @property
    def restarts(self) -> int:
        return int(self.service.container.unit(ENGINE_UNIT)["NRestarts"])

    def run(self, *argv: str) -> None:
        self.service.container.run(*argv)

    def reload(self) -> None:
        self.run("systemctl", "daemon-reload")

    @contextmanager
    def written(self, path: str, text: str) -> Iterator[None]:
        """Another file in place of the one at `path`, or where there is none."""
        inside = self.service.container
        before = inside.run("cat", path, check=False)
        inside.write(path, text)
        self.reload()
        try:
            yield
        finally:
            if before.returncode == 0:
                inside.write(path, before.stdout)
            else:
                inside.run("rm", path)
            self.reload()


@pytest.fixture(scope="module")
def everlasting(
    engine: InstalledEngine,
    bound: dict[str, Path],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    yield from prepared(engine, bound, tmp_path_factory.mktemp("doctor"), gpu=False)


@pytest.fixture
def served(everlasting: Served) -> Iterator[Served]:
    everlasting.calm()
    yield everlasting
    everlasting.show()


@pytest.fixture
def machine(served: Served) -> Machine:
    return Machine(served.service)


def test_a_sound_service_has_nothing_to_tell(machine: Machine) -> None:
    report = machine.report()
    assert [found for found in ids(report) if not found.startswith("speed.")] == []
    machine.run("useradd", "--create-home", "anybody")
    assert ids(machine.report(FAMILY, user="anybody")) == []


@provokes("service.missing-unit")
def test_units_that_were_deleted(machine: Machine) -> None:
    files = {name: machine.service.container.read(f"{UNITS}/{name}") for name in (ENGINE_UNIT, GUARD_UNIT, TARGET)}
    for gone in ([ENGINE_UNIT], [GUARD_UNIT], [ENGINE_UNIT, GUARD_UNIT, TARGET]):
        machine.run("rm", *(f"{UNITS}/{name}" for name in gone))
        machine.reload()
        try:
            found = machine.finding("service.missing-unit")
        finally:
            for name in gone:
                machine.service.container.write(f"{UNITS}/{name}", files[name])
            machine.reload()
        assert found["observed"] == f"not there: {', '.join(gone)}"
        assert found["remedy"]["commands"] == ["llmctl install-service"]
    machine.fine()


@provokes("service.masked")
def test_a_unit_that_is_masked(machine: Machine) -> None:
    path = f"{UNITS}/{ENGINE_UNIT}"
    text = machine.service.container.read(path)
    machine.run("ln", "-sf", "/dev/null", path)
    machine.reload()
    try:
        found = machine.finding("service.masked")
        assert found["subject"] == ENGINE_UNIT
        machine.run(*found["remedy"]["commands"][0].removeprefix("sudo ").split())
    finally:
        machine.service.container.write(path, text)
        machine.reload()
    machine.fine()


@provokes("service.overwritten")
def test_a_unit_of_somebody_else(machine: Machine) -> None:
    with machine.written(f"{UNITS}/{GUARD_UNIT}", "[Service]\nExecStart=/bin/sleep 1\n"):
        found = machine.finding("service.overwritten")
    assert found["subject"] == GUARD_UNIT
    machine.fine()


@provokes("service.disabled")
def test_nothing_starts_at_the_next_boot(served: Served, machine: Machine) -> None:
    machine.run("systemctl", "disable", TARGET)
    try:
        found = machine.finding("service.disabled")
        assert (found["severity"], found["subject"]) == ("error", TARGET)
        machine.run("systemctl", "stop", TARGET, ENGINE_UNIT, GUARD_UNIT)
        report = machine.report()
        assert ids(report)[0] == root_of("disabled-unit") == "service.disabled"
        assert "server.not-running" in [each["id"] for each in report["skipped"]]
    finally:
        machine.run(*found["remedy"]["commands"][0].removeprefix("sudo ").split())
    served.until("the service", lambda: served.ready)
    machine.fine()


@provokes("service.foreign-beside")
def test_two_units_for_one_port(machine: Machine) -> None:
    unit = f"[Service]\nExecStart={ENGINE}/bin/ollama serve\nEnvironment=OLLAMA_HOST=127.0.0.1:{machine.service.port}\n"
    with machine.written(f"{UNITS}/ollama.service", f"{unit}[Install]\nWantedBy=multi-user.target\n"):
        assert "service.foreign-beside" not in ids(machine.report(FAMILY))
        machine.run("systemctl", "enable", "ollama.service")
        found = machine.finding("service.foreign-beside")
        machine.run("systemctl", "disable", "ollama.service")
    assert found["severity"] == "error"
    machine.fine()


@provokes("service.edited")
def test_a_line_that_somebody_added(machine: Machine) -> None:
    path = f"{UNITS}/{ENGINE_UNIT}"
    text = machine.service.container.read(path)
    with machine.written(path, text.replace("Restart=always\n", "Restart=no\nNice=5\n")):
        found = machine.finding("service.edited")
    assert found["subject"] == ENGINE_UNIT
    assert found["evidence"] == ["+Restart=no", "+Nice=5", "-Restart=always"]
    machine.fine()


@provokes("service.environment-differs")
def test_the_profile_a_drop_in_and_the_shell_say_otherwise(machine: Machine) -> None:
    profile = machine.service.container.read("/etc/llmctl/profile.yaml")
    with machine.written("/etc/llmctl/profile.yaml", profile.replace("context: 2048", "context: 4096")):
        found = machine.finding("service.environment-differs")
    assert "OLLAMA_CONTEXT_LENGTH is 2048, 4096 asked" in found["observed"]
    with machine.written(f"{UNITS}/{ENGINE_UNIT}.d/mine.conf", "[Service]\nEnvironment=OLLAMA_NUM_PARALLEL=3\n"):
        found = machine.finding("service.environment-differs")
    assert found["severity"] == "info"
    assert f"{UNITS}/{ENGINE_UNIT}.d/mine.conf" in found["evidence"]
    elsewhere = {"OLLAMA_MODELS": "/root/.ollama/models"}
    found = machine.finding("service.environment-differs", environ=elsewhere)
    assert found["remedy"]["commands"] == ["unset OLLAMA_MODELS"]
    machine.fine()


def only(served: Served) -> int:
    """The server's pid, once it is the only program of its name: it starts another one to look for GPUs."""
    return served.until("one server", lambda: found[0] if len(found := served.pids(ENGINE_UNIT, "ollama")) == 1 else 0)


@provokes("service.restarts", "service.failed")
def test_a_server_that_ends_again_and_again(served: Served, machine: Machine) -> None:
    for number in range(3):
        machine.service.container.signal(only(served), signal.SIGKILL)
        served.until("a restart", lambda number=number: machine.restarts > number)  # type: ignore[misc]
    found = machine.finding("service.restarts")
    assert (found["severity"], found["subject"]) == ("warning", ENGINE_UNIT)
    served.until("the server", lambda: served.ready)
    served.add(ENGINE_UNIT, "dies", "ExecStart=", "ExecStart=/bin/sh -c 'echo error: no such card >&2; exit 3'")
    served.add(ENGINE_UNIT, "soon", "[Unit]", "StartLimitBurst=2")
    try:
        machine.run("systemctl", "reset-failed", ENGINE_UNIT)
        machine.run("systemctl", "--no-block", "restart", ENGINE_UNIT)
        served.until("the limit", lambda: machine.service.container.unit(ENGINE_UNIT)["ActiveState"] == "failed")
        report = machine.report()
        assert ids(report)[0] == "service.failed"
        assert "error: no such card" in report["findings"][0]["evidence"]
    finally:
        for name in ("dies", "soon"):
            served.take_away(ENGINE_UNIT, name)


def test_a_taken_port_is_the_cause_and_the_failed_unit_is_not(served: Served, machine: Machine) -> None:
    port = str(machine.service.port)
    served.add(ENGINE_UNIT, "soon", "[Unit]", "StartLimitBurst=2")
    machine.run("systemctl", "stop", ENGINE_UNIT)
    machine.run("systemd-run", "--unit=thief", "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", port)
    try:
        machine.run("systemctl", "--no-block", "start", ENGINE_UNIT)
        served.until("the limit", lambda: machine.service.container.unit(ENGINE_UNIT)["ActiveState"] == "failed")
        report = machine.report()
        assert ids(report)[0] == root_of("port-taken-at-boot") == "server.port-taken"
        assert not {"service.failed", "service.guard-degraded", "server.not-running"} & set(ids(report))
    finally:
        machine.run("systemctl", "stop", "thief")
        served.take_away(ENGINE_UNIT, "soon")


@provokes("service.watchdog")
def test_a_guard_that_hangs(served: Served, machine: Machine) -> None:
    served.add(GUARD_UNIT, "soon", "WatchdogSec=1", "TimeoutAbortSec=1")
    try:
        served.restart_guard()
        served.until("the guard", lambda: served.ready)
        (before,) = served.pids(GUARD_UNIT)
        machine.service.container.signal(before, signal.SIGSTOP)
        served.until("another guard", lambda: served.pids(GUARD_UNIT) not in ([], [before]))
        found = machine.finding("service.watchdog")
        assert "1 times" in found["observed"]
    finally:
        served.take_away(GUARD_UNIT, "soon")


@provokes("service.guard-degraded")
def test_a_guard_that_has_given_up(served: Served, machine: Machine) -> None:
    """Weights whose head is overwritten: their length is right, and nothing can load them."""
    blobs = served.inside / "var/lib/llmctl/models/blobs"
    weights = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    # The engine remembers what it has read of a file.
    machine.run("systemctl", "stop", ENGINE_UNIT)
    with weights.open("r+b") as file:
        kept = file.read(1 << 16)
        file.seek(0)
        file.write(bytes(1 << 16))
    try:
        machine.run("systemctl", "start", ENGINE_UNIT)
        given_up = ("load_failed", True)
        served.until("it to give up", lambda: (served.note.get("reason"), served.note.get("degraded")) == given_up)
        found = machine.finding("service.guard-degraded")
        assert "load" in found["observed"]
        assert ids(machine.report())[0] == "service.guard-degraded"
    finally:
        with weights.open("r+b") as file:
            file.write(kept)
        served.llmctl("down")
        served.llmctl("up")


@provokes("service.linger")
def test_units_that_end_with_the_session(machine: Machine) -> None:
    inside = machine.service.container
    inside.add_user("ann")
    made = service(inside)
    profile = made.profile("/home/ann/my.yaml")
    inside.run("chown", "-R", "ann:ann", "/home/ann")
    # The machine has a service too, which is meant by who has nothing of their own.
    own = {"LLMCTL_SCOPE": "user"}
    done = made.llmctl("install-service", "--user", "--profile", profile, "--json", user="ann", environ=own)
    assert done.code == 0, done.err
    hers = Machine(made)
    assert "service.linger" not in ids(hers.report(FAMILY, user="ann"))
    # logind would end her manager at once; a person who logged in has one without it.
    inside.run("rm", "/var/lib/systemd/linger/ann")
    found = hers.finding("service.linger", user="ann")
    assert found["remedy"]["commands"] == ["loginctl enable-linger ann"]
    inside.run(*found["remedy"]["commands"][0].split())
    inside.wait(lambda: "service.linger" not in ids(hers.report(FAMILY, user="ann")), 30, "her manager")
    inside.wait(
        lambda: made.llmctl("uninstall-service", "--user", user="ann", environ=own).code == 0, 30, "her units to go"
    )


@pytest.mark.real("nvml")
@provokes("service.boot-order", "service.overwritten")
def test_ollamas_own_unit(start_container: StartContainer, container_nvml: ContainerGpu, ask: Ask) -> None:  # noqa: F811
    """As its installer leaves it, on a machine whose driver comes after it; then adopted, and the drop-in lost."""
    inside = start_container()
    made = service(inside)
    install_ollama(made)
    inside.reboot()
    inside.wait(lambda: ask(made.port, "/api/version"), 60, "Ollama's answer")
    hers = Machine(made)
    profile = ("--profile", made.profile())
    assert "service.boot-order" not in ids(hers.report(*profile)), "no card, so nothing was missed"
    found = hers.finding("service.boot-order", *profile, environ=container_nvml.environ)
    assert "library=cpu" in found["evidence"][0]

    adopted = made.install("--adopt")
    assert adopted.code == 0, adopted.err
    inside.wait(lambda: ask(made.port, "/api/version"), 60, "Ollama's answer")
    assert made.llmctl("up", "--json").code == 0
    assert ids(hers.report(FAMILY)) == []
    inside.run("rm", f"{UNITS}/ollama.service.d/llmctl.conf")
    inside.run("systemctl", "daemon-reload")
    found = hers.finding("service.overwritten")
    assert "OLLAMA_KEEP_ALIVE=-1" in found["observed"]
    assert found["remedy"]["commands"] == ["llmctl install-service --adopt"]
    assert made.llmctl("uninstall-service").code == 0
    assert ids(hers.report(FAMILY)) == [], "nothing of a service that was taken away is missed"
