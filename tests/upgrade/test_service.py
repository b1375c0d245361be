"""yield and engine upgrade where systemd owns the server and a guard is at work."""

from __future__ import annotations

import pytest

from tests.parts import engine as engine_part
from tests.parts.systemd import Container
from tests.service.conftest import StartContainer, bound, shared, start_container
from tests.service.installing import ENGINE_UNIT, Service, service
from tests.upgrade.conftest import NEW, OLD

__all__ = ["bound", "shared", "start_container"]

pytestmark = [pytest.mark.real("systemd", "ollama", "engines", "model"), pytest.mark.timeout(600)]

ENGINES = "/var/lib/llmctl/engines"
NOBODY_NAMED = {"LLMCTL_ENGINE": ""}


@pytest.fixture
def made(start_container: StartContainer) -> Service:
    """The service of the machine, up on the newer engine, with the older one installed beside it."""
    older = engine_part.of_version(OLD)
    assert older is not None
    made = service(start_container({"/older": older}))
    made.add_to_engine("[Service]", "Environment=LLAMA_ARG_THREADS=1")
    assert made.install().code == 0
    made.container.run("cp", "-a", "/older", f"{ENGINES}/{OLD}-cpu")
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err
    return made


def current(container: Container) -> str:
    return container.run("readlink", f"{ENGINES}/current").stdout.strip().partition("-")[0]


def test_upgrade_and_rollback_go_through_the_unit(made: Service) -> None:
    container = made.container
    container.run("useradd", "--create-home", "ann")
    for verb in (("engine", "upgrade", OLD), ("yield", "--", "true")):
        refused = made.llmctl(*verb, user="ann")
        assert refused.code == 5
        assert "sudo llmctl" in refused.err
    planned = made.llmctl("engine", "upgrade", OLD, "--dry-run", "--json", user="ann", environ=NOBODY_NAMED)
    assert (planned.code, planned.json["outcome"]) == (0, "planned"), planned.err
    # There was no upgrade yet.
    assert made.llmctl("engine", "rollback", "--dry-run", user="ann").code == 4
    before = container.pids(ENGINE_UNIT, "ollama")
    done = made.llmctl("engine", "upgrade", OLD, "--margin", "99", "--json", environ=NOBODY_NAMED)
    assert done.code == 0, done.err
    assert done.json["outcome"] == "changed"
    assert current(container) == OLD
    status = made.llmctl("status", "--json").json
    assert (status["owner"], status["engine_version"], status["verdict"]) == ("systemd", OLD, "proved")
    assert container.pids(ENGINE_UNIT, "ollama") != before
    back = made.llmctl("engine", "rollback", environ=NOBODY_NAMED)
    assert back.code == 0, back.err
    made.await_resident()
    assert (current(container), made.llmctl("status", "--json").json["engine_version"]) == (NEW, NEW)


def test_a_command_of_anns_has_the_gpu_and_the_guard_brings_the_model_back(made: Service) -> None:
    container = made.container
    container.run("useradd", "--create-home", "ann")
    uid = container.run("id", "-u", "ann").stdout.strip()
    as_sudo = {"SUDO_UID": uid, "SUDO_GID": uid, "SUDO_USER": "ann"}
    # Ends when the guard, which may not open root's lock, has seen that the GPU is given away.
    seen = 'llmctl status --json | grep -q \'"reason": "leased"\''
    asks = (
        f"id -un; for i in $(seq 20); do {seen} && echo seen && break; sleep 0.5; done; "
        'llmctl ask Hello 2>/dev/null; echo "asked: $?"; llmctl status --quiet; echo "resident: $?"; exit 3'
    )
    done = made.llmctl("yield", "--timeout", "90", "--", "sh", "-c", asks, environ=as_sudo)
    assert (done.code, done.out.split()) == (3, ["ann", "seen", "asked:", "3", "resident:", "5"]), done.err
    assert "the guard" in done.err
    assert made.resident


def test_sigkill_of_yield_is_mended_by_the_guard(made: Service) -> None:
    """Nobody types anything: the guard sees the lease die."""
    container = made.container
    killed = "llmctl yield -- sleep 300 & pid=$!; until test -e /run/llmctl/lease.json; do sleep 0.05; done; sleep 1; "
    container.run("sh", "-c", killed + "kill -9 $pid; wait", check=False)
    made.await_resident()
    container.wait(
        lambda: container.run("test", "-e", "/run/llmctl/lease.json", check=False).returncode != 0, 60, "the burial"
    )
