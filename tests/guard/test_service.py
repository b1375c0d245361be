"""The guard as a unit of a real systemd: when it is ready, who watches it, and what the journal has of it."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.parts.rpc import RpcGpu
from tests.parts.systemd import Container
from tests.service.conftest import bound, container, shared, start_container  # noqa: F401 - fixtures
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, Service, service

pytestmark = pytest.mark.real("systemd", "ollama", "model", "rpc")

SECONDS = 120


@pytest.fixture
def made(container: Container, rpc_gpu: RpcGpu) -> Service:  # noqa: F811
    """Installed for a GPU, and nothing pinned yet."""
    found = service(container)
    found.add_to_engine("[Service]", *(f"Environment={name}={value}" for name, value in rpc_gpu.environ.items()))
    assert found.install(profile=found.profile(require="full")).code == 0
    return found


def events(found: Container, reason: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in found.journal(GUARD_UNIT)
        if entry.get("SYSLOG_IDENTIFIER") == "llmctl-guard" and entry.get("REASON") == reason
    ]


def test_it_is_ready_only_when_the_model_is_and_says_in_the_journal_what_it_does(
    made: Service,
    container: Container,  # noqa: F811
) -> None:
    container.wait(
        lambda: "not pinned" in container.unit(GUARD_UNIT).get("StatusText", ""), SECONDS, "what it waits for"
    )
    assert container.unit(GUARD_UNIT)["ActiveState"] == "activating"
    assert made.llmctl("up").code == 0
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", SECONDS, "ready")
    container.wait(
        lambda: container.unit(GUARD_UNIT)["StatusText"] == "starter is resident on the GPU",
        SECONDS,
        "the words for it",
    )

    (runner,) = container.pids(ENGINE_UNIT, "llama-server")
    container.signal(runner, signal.SIGKILL)
    entry = container.wait(lambda: events(container, "not_running"), SECONDS, "an entry")[0]
    assert (entry["ACTION"], entry["MODEL"], entry["_SYSTEMD_UNIT"]) == ("load", "starter", GUARD_UNIT)
    assert entry["OBSERVED"] == "none"
    made.await_resident()

    # Restart= revives the server and the guard; nobody types anything.
    (server,) = container.pids(ENGINE_UNIT, "ollama")
    (guard,) = container.pids(GUARD_UNIT)
    container.signal(guard, signal.SIGKILL)
    container.signal(server, signal.SIGKILL)
    container.wait(lambda: container.pids(ENGINE_UNIT, "ollama") not in ([], [server]), SECONDS, "another server")
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", SECONDS, "ready again")
    made.await_resident()


def test_a_guard_that_hangs_is_replaced_by_systemd(made: Service, container: Container) -> None:  # noqa: F811
    container.write(f"/etc/systemd/system/{GUARD_UNIT}.d/mine.conf", "[Service]\nWatchdogSec=4\n")
    container.run("systemctl", "daemon-reload")
    assert made.llmctl("up").code == 0
    container.run("systemctl", "restart", GUARD_UNIT)
    (before,) = container.pids(GUARD_UNIT)
    container.signal(before, signal.SIGSTOP)
    container.wait(lambda: container.pids(GUARD_UNIT) not in ([], [before]), SECONDS, "another guard")
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", SECONDS, "ready again")
    assert any("atchdog" in str(entry.get("MESSAGE")) for entry in container.journal(GUARD_UNIT))
    assert made.resident


# As much as systemd's socket holds (net.unix.max_dgram_qlen).
FILL = """\
import socket
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
out.setblocking(False)
try:
    while True:
        out.sendto(b"STATUS=", "/run/systemd/notify")
except BlockingIOError:
    pass
"""


def test_a_busy_systemd_hears_that_it_is_ready_later(made: Service, container: Container) -> None:  # noqa: F811
    """The guard becomes ready while systemd itself hears nothing, and has no room for its word."""
    assert made.llmctl("up").code == 0
    assert made.llmctl("guard", "--hold").code == 0
    container.run("systemctl", "--no-block", "restart", GUARD_UNIT)
    container.wait(lambda: "held" in container.unit(GUARD_UNIT).get("StatusText", ""), SECONDS, "the hold")
    assert container.unit(GUARD_UNIT)["ActiveState"] == "activating"
    os.kill(container.init, signal.SIGSTOP)
    try:
        container.run("python3", "-c", FILL)
        assert made.llmctl("guard", "--resume").code == 0
        container.wait(lambda: json.loads(container.read("/run/llmctl/guard.json"))["ready"], SECONDS, "a ready guard")
    finally:
        os.kill(container.init, signal.SIGCONT)
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", SECONDS, "systemd to hear it")
    container.wait(
        lambda: container.unit(GUARD_UNIT)["StatusText"] == "starter is resident on the GPU",
        SECONDS,
        "the words for it",
    )
