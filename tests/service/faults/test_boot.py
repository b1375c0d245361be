"""The machine boots, and what is in the way then."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from tests.service.faults.served import Served, fault
from tests.service.installing import ENGINE_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model")


@fault(
    what="the machine boots",
    how="reboot of the container",
    happens="the units start, the guard loads the model and proves it",
    again="the start of the engine, one look and one load",
)
def test_boot(served: Served) -> None:
    with served.away("a boot", lambda: True):
        served.container.reboot()


@fault(
    what="the machine reboots in the middle of a load",
    how="the runner is stopped while it loads, then a reboot of the container",
    happens="nothing of the unfinished load is left; the guard loads the model after the boot",
    again="the start of the engine, one look and one load",
)
def test_reboot_in_the_middle_of_a_load(served: Served) -> None:
    def loading() -> bool:
        served.generate(keep_alive=0)
        pid = served.until("a runner that loads", lambda: next(iter(served.processes("llama-server")), 0))
        with suppress(AssertionError):
            # It may be the last one, which an unload has just ended.
            served.container.signal(pid, signal.SIGSTOP)
        return pid in served.processes("llama-server") and served.loaded() == []

    served.until("a load that is under way", loading)
    with served.away("a reboot in the middle of a load", lambda: True):
        served.container.reboot()


THIEF = """\
[Unit]
DefaultDependencies=no
Before=llmctl-engine.service
[Service]
Type=exec
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 {port}
StandardError=null
[Install]
WantedBy=multi-user.target
"""


@fault(
    what="another program has the port at boot",
    how="a unit before the engine's that listens there",
    happens="`not_running`, with what listens there; the engine is started anew with longer and longer pauses, and is "
    "up when the port is free",
    again="the rest of the pause (2 to 60 s), the start of the engine, one look and one load",
)
def test_the_port_is_taken_at_boot(served: Served) -> None:
    container = served.container
    container.write("/etc/systemd/system/thief.service", THIEF.format(port=served.service.port))
    container.run("systemctl", "enable", "thief.service")
    try:
        container.poweroff()
        # To systemd the boot has ended when the guard is ready.
        container.boot(settled=False)
        up = ("systemctl", "is-active", "multi-user.target")
        container.wait(lambda: container.run(*up, check=False).returncode == 0, 60, "the machine to be up")
        served.until("word of it", lambda: "is taken by" in served.note.get("words", ""))
        assert served.note["reason"] == "not_running"
        served.until("a start anew", lambda: container.unit(ENGINE_UNIT)["NRestarts"] not in {"", "0"})
        assert not served.resident
        assert served.guard["ActiveState"] == "activating"
        served.says(str(served.service.port))
        with served.away("a taken port", lambda: True):
            container.run("systemctl", "disable", "--now", "thief.service")
    finally:
        container.run("systemctl", "disable", "--now", "thief.service")
        container.run("rm", "-f", "/etc/systemd/system/thief.service")
        container.run("systemctl", "daemon-reload")
