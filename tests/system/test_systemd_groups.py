"""Whose unit a process belongs to, by the control group that systemd has it in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.unit import ENGINE, Scope
from llmctl.system import systemd

MINE = f"user.slice/user-{os.getuid()}.slice/user@{os.getuid()}.service/app.slice"
OTHERS = f"user.slice/user-{os.getuid() + 1}.slice/user@{os.getuid() + 1}.service/app.slice"
CONTAINER = "/docker/0462168a1bfe"
PID = 4194000


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The text of /proc/PID/cgroup; one that is not here has ended."""
    texts: dict[int, str] = {}
    plain = Path.read_text

    def read(self: Path, *arguments: Any, **named: Any) -> str:
        if self.parent.parent != Path("/proc") or self.name != "cgroup":
            return plain(self, *arguments, **named)
        if (pid := int(self.parent.name)) not in texts:
            raise FileNotFoundError(str(self))
        return texts[pid]

    monkeypatch.setattr(Path, "read_text", read)
    return texts


@pytest.mark.parametrize("before", ["", CONTAINER])
@pytest.mark.parametrize("line", ["0::{}\n", "5:devices:/\n1:name=systemd:{}\n0::/\n"])
@pytest.mark.parametrize(
    ("group", "scopes"),
    [
        (f"system.slice/{ENGINE}", ["system"]),
        (f"system.slice/{ENGINE}/below", ["system"]),
        (f"{MINE}/{ENGINE}", ["user"]),
        (f"{OTHERS}/{ENGINE}", []),
        ("system.slice/ollama.service", []),
        (f"system.slice/not-{ENGINE}", []),
        (f"{MINE}/session.scope", []),
        # Another container's, seen from outside of it.
        (f"docker/ab12/system.slice/{ENGINE}", []),
    ],
)
def test_the_manager_whose_engine_a_process_is(
    groups: dict[int, str], before: str, line: str, group: str, scopes: list[Scope]
) -> None:
    groups[1] = line.format(f"{before}/init.scope")
    groups[PID] = line.format(f"{before}/{group}")
    assert [scope for scope in ("system", "user") if systemd.around_of(PID, scope)] == scopes


def test_one_of_the_host_is_none_of_a_container(groups: dict[int, str]) -> None:
    groups[1], groups[PID] = f"0::{CONTAINER}/init.scope\n", f"0::/system.slice/{ENGINE}\n"
    assert systemd.around(PID)
    assert not systemd.around_of(PID, "system")


def test_a_process_that_has_ended_is_nobodys(groups: dict[int, str]) -> None:
    groups[1] = "0::/init.scope\n"
    assert not systemd.around(PID)
    assert not systemd.around_of(PID, "system")
