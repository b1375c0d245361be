"""The commands that only hardware can answer, where there is none: they refuse, and change nothing."""

from __future__ import annotations

import pytest

from tests.parts.systemd import Container
from tests.service.conftest import CHECKOUT
from tests.service.installing import service

pytestmark = pytest.mark.real("systemd", "ollama")

SCRIPT = CHECKOUT / "benchmarks/hardware.py"


@pytest.mark.parametrize("command", ["suspend", "uvm"])
def test_a_machine_that_cannot_show_it_is_told_why(container: Container, command: str) -> None:
    container.run("useradd", "--create-home", "ann")
    assert service(container).install().code == 0
    for user, reason in (("ann", "this needs root"), (None, "this is a container: its kernel is shared")):
        done = container.run("python3", SCRIPT, command, user=user, check=False)
        assert (done.returncode, done.stderr) == (2, f"refused: {reason}\n")
    # As on a machine of its own, without a card.
    container.write("/usr/local/bin/systemd-detect-virt", "#!/bin/sh\nexit 1\n", "0755")
    done = container.run("python3", SCRIPT, command, check=False)
    assert (done.returncode, done.stderr) == (2, "refused: no NVIDIA driver is loaded\n")
