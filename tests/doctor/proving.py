"""How a test says which checks it proves, and what holds of every finding."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from llmctl.cli import COMMANDS, load_command

Test = TypeVar("Test", bound=Callable[..., None])
# What a remedy may call besides llmctl: programs of every Linux with systemd, of NVIDIA's driver, and a shell's own.
PROGRAMS = frozenset(
    {
        *("sudo", "systemctl", "journalctl", "loginctl", "usermod", "reboot", "dmesg"),
        *("nvidia-smi", "nvidia-modprobe", "nvidia-ctk", "modprobe"),
        *("export", "unset", "kill", "ps", "ss", "lsof", "id", "chmod", "chown", "df", "du", "rm", "ls", "findmnt"),
        *("ollama", "docker", "curl", "getent", "install", "lsblk"),
    }
)


@lru_cache(maxsize=1)
def scenarios() -> list[dict[str, Any]]:
    """Faults as they come together, and the check that finds their cause."""
    return list(yaml.safe_load((Path(__file__).parent / "scenarios.yaml").read_text()))


def root_of(scenario: str) -> str:
    """For the scenarios on systemd, which tests/doctor/test_service.py makes happen."""
    return next(str(each["root"]) for each in scenarios() if each["id"] == scenario)


def provokes(*ids: str, injected: str = "") -> Callable[[Test], Test]:
    """The test makes the condition of these checks happen. `injected`: why it cannot really happen here, so that it is
    told to llmctl at `system/` instead."""
    assert ids

    def mark(test: Test) -> Test:
        test.__dict__["provokes"] = (ids, injected)
        return test

    return mark


def complete(finding: dict[str, Any]) -> None:
    """Every finding has what product and docs promise, and commands that llmctl or the system can parse."""
    assert finding["observed"]
    assert finding["expected"]
    assert finding["remedy"]["text"]
    assert finding["remedy"]["commands"], finding
    for command in finding["remedy"]["commands"]:
        parses(command)
        if finding["remedy"]["safe"]:
            assert command.startswith("llmctl "), command


def parses(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "sudo":
        words = words[1:]
    while "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]
    if words[0] != "llmctl":
        assert words[0] in PROGRAMS or shutil.which(words[0]), command
        return
    at: Any = load_command(words[1], COMMANDS[words[1]])
    rest = words[2:]
    while isinstance(at, click.Group) or hasattr(at, "commands"):
        at, rest = at.commands[rest[0]], rest[1:]
    # Typer's own click: parse_args refuses what the verb does not take.
    context = at.make_context(words[1], list(rest), resilient_parsing=False)
    context.close()
