"""Rules of the house that a user would feel: what a command imports, and what its help says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.cli import COMMANDS, load_command

ROOT = Path(__file__).resolve().parent.parent

# Each import with what it would cost the command that does not need it.
VERSION_BANS = {
    "typer": "`--version` is answered before the command line is built",
    "httpx": "nothing is asked of a server",
    "yaml": "no profile is read",
    "pynvml": "no GPU is asked",
    "rich": "plain text is printed",
    "psutil": "no process is looked at",
    "fastapi": "only `serve` is a web server",
}
STATUS_BANS = {
    "httpx": "the synchronous client is enough, and httpx costs as much as the whole of status",
    "rich": "stdout is no terminal here",
    "jsonschema": "only `ask --schema` validates an answer",
    "fastapi": "only `serve` is a web server",
    "uvicorn": "only `serve` is a web server",
    "zstandard": "only `engine install` unpacks archives",
}


def imported(*arguments: str) -> set[str]:
    """The top-level modules in a fresh interpreter after it ran `llmctl ARGUMENTS`."""
    program = (
        "import json, sys\n"
        "from llmctl.__main__ import main\n"
        f"main({list(arguments)!r})\n"
        "sys.stderr.write('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "bans"),
    [
        (["--version"], VERSION_BANS),
        (["status"], STATUS_BANS),
        (["status", "--json"], STATUS_BANS),
        (["list"], STATUS_BANS),
    ],
    ids=["version", "status", "status-json", "list"],
)
def test_a_quick_command_does_not_import_what_is_slow(arguments: list[str], bans: dict[str, str]) -> None:
    found = imported(*arguments) & bans.keys()
    assert not found, "; ".join(f"{name}: {bans[name]}" for name in sorted(found))


def test_no_module_imports_the_web_framework_when_all_of_them_are_loaded() -> None:
    program = (
        "import importlib, pkgutil, sys, llmctl\n"
        "for module in pkgutil.walk_packages(llmctl.__path__, 'llmctl.'):\n"
        "    if module.name != 'llmctl.__main__' and not module.name.startswith('llmctl.gateway'):\n"
        "        importlib.import_module(module.name)\n"
        "sys.exit('fastapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "something but the gateway imports fastapi"


def commands() -> list[str]:
    """Every command that does something: the verbs, and what stands below the nouns."""
    found = []
    for name, target in COMMANDS.items():
        children = getattr(load_command(name, target), "commands", {})
        found += [f"{name} {child}" for child in children] or [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_help_says_what_a_command_needs_and_does(command: str) -> None:
    line = [sys.executable, "-m", "llmctl", *command.split(), "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sections = ["PRECONDITIONS", "SIDE EFFECTS", "EXIT CODES", "EXAMPLE"]
    positions = [done.stdout.find(section) for section in sections]
    assert -1 not in positions, f"{command} --help lacks one of {sections}"
    assert positions == sorted(positions)
    example = done.stdout[positions[-1] :].splitlines()[1].strip()
    assert f"llmctl {command}" in example
