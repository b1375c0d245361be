"""Write what is generated: the command and profile references, the JSON Schemas, the units, and the table of faults.

python docs/generate.py            write the files
python docs/generate.py --check    write nothing; exit 1 and name what differs
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from checks import checks_page
from faults import reliability_page

from llmctl.cli import COMMANDS, load_command
from llmctl.core.lock_schema import lock_schema_text
from llmctl.core.schema import json_schema_text, profile_reference
from llmctl.workflows.install import shipped

ROOT = Path(__file__).resolve().parent.parent

CLI_INTRODUCTION = """\
# The commands

This page is generated from each command's `--help`; `make docs` writes it.

stdout is data, stderr is progress and diagnosis. `--json` prints one document with `"schema": 1`. Exit codes are
the same in both: 0 done, 1 failed, 2 usage or invalid profile, 3 server not running, 4 no such thing, 5 it ran and
the answer is no, 6 prompt too long or answer cut, 130 interrupted, 141 stdout closed. With
`--json` a "no" prints its document too, on stdout, with the `error` in it where it is a refusal; where another model
is there than the pinned one, it has both sides: `pinned_digest`, `found_digest`, and `changes` with each part that
differs, its digest and `size_bytes`.
"""


def verbs(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """`path`, then every command below it."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, (*path, name))


def help_text(path: tuple[str, ...]) -> str:
    """What a terminal of 80 columns shows."""
    environ = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "llmctl", *path, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"llmctl {' '.join(path)} --help failed:\n{done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def cli_reference() -> str:
    every = [path for name, target in COMMANDS.items() for path in verbs(load_command(name, target), (name,))]
    sections = [f"## llmctl {' '.join(path)}\n\n```text\n{help_text(path)}\n```\n" for path in every]
    overview = f"```text\n{help_text(())}\n```\n"
    return "\n".join([CLI_INTRODUCTION, overview, *sections])


GENERATED: dict[str, Callable[[], str]] = {
    "docs/checks.md": checks_page,
    "docs/cli.md": cli_reference,
    "docs/profile.md": profile_reference,
    "docs/reliability.md": reliability_page,
    "profiles/lock.schema.json": lock_schema_text,
    "profiles/profile.schema.json": json_schema_text,
    **{f"systemd/{name}": partial(shipped().__getitem__, name) for name in shipped()},
}


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    if arguments and not check:
        sys.exit(__doc__)
    stale = []
    for name, generate in GENERATED.items():
        path, text = ROOT / name, generate()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'differs from the code' if check else 'written'}: {', '.join(stale)}\n")
    if stale and check:
        sys.stderr.write("hint: make docs\n")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
