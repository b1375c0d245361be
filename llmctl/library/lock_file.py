"""The lock file: read whole or refused, written whole or not at all."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from llmctl.core.pin import Lock, LockError
from llmctl.errors import NotFound

LARGEST_BYTES = 4 << 20
HEADER = "# Written by llmctl: which weights the names in the profile stand for. Keep it with the profile.\n"


def read(path: Path) -> Lock:
    from llmctl.system.files import read_bounded
    from llmctl.system.yaml_file import parse_yaml

    try:
        content = read_bounded(path, LARGEST_BYTES)
    except NotFound:
        return Lock()
    try:
        return Lock.from_dict(parse_yaml(content, str(path), LockError).data)
    except LockError as error:
        raise LockError(
            f"{path} is no lock file of llmctl: {error.message}",
            error.hint or f"mv {shlex.quote(str(path))} {shlex.quote(str(path))}.old",
        ) from None


def write(path: Path, lock: Lock) -> None:
    from llmctl.system.files import atomic_write
    from llmctl.system.yaml_file import dump_yaml

    content = HEADER + dump_yaml(lock.to_dict())
    # An unchanged lock keeps its time, and a read-only folder is no obstacle to a second `up`.
    if not path.exists() or path.read_text() != content:
        atomic_write(path, content)


def change(path: Path, edit: Callable[[Lock], Lock]) -> Lock:
    from llmctl.system.files import exclusive_folder, make_folder

    make_folder(path.parent)
    with exclusive_folder(path.parent, lambda: None):
        changed = edit(read(path))
        write(path, changed)
        return changed
