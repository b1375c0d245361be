"""One archive for a bug report: what doctor found, the facts, the versions, and the log's lines that tell something."""

from __future__ import annotations

import io
import json
import os
import platform
import pwd
import socket
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl import __version__
from llmctl.core import engine_log, redaction
from llmctl.core.checks.facts import NotGathered
from llmctl.core.redaction import Names
from llmctl.errors import LlmctlError
from llmctl.system import files
from llmctl.workflows.gather import log, within

if TYPE_CHECKING:
    from llmctl.workflows.gather import Given

FOLDER = "llmctl-doctor"
LOG_LINES = 2000


@dataclass(frozen=True)
class Written:
    path: str
    size_bytes: int


def names() -> Names:
    """What names this machine and the people on it."""
    people = [entry for entry in pwd.getpwall() if entry.pw_uid == 0 or entry.pw_uid >= 1000]
    with suppress(KeyError):
        # A directory service need not list whom it knows.
        people.append(pwd.getpwuid(os.geteuid()))
    homes = {entry.pw_dir: "~" for entry in people}
    homes[str(Path("~").expanduser())] = "~"
    return Names(socket.gethostname(), tuple(entry.pw_name for entry in people), homes)


def members(documents: Mapping[str, Any], given: Given) -> dict[str, str]:
    """The files of the archive and their redacted texts. `documents` are plain data by name."""
    hidden = names()
    texts = {
        f"{name}.json": json.dumps(redaction.redacted(document, hidden), indent=1, ensure_ascii=False)
        for name, document in {**documents, "versions": versions()}.items()
    }
    texts["log.txt"] = "\n".join(redaction.text(line, hidden) for line in log_lines(given)) + "\n"
    return texts


def versions() -> dict[str, str]:
    wanted = ("httpx", "typer", "rich", "nvidia-ml-py", "psutil")
    kernel = f"{platform.system()} {platform.release()}"
    return {"llmctl": __version__, "python": platform.python_version(), "kernel": kernel} | {
        name: metadata.version(name) for name in wanted
    }


def log_lines(given: Given) -> list[str]:
    """What may be shown of the log that the facts are from."""
    try:
        lines = engine_log.telling(within("log", lambda: log.read(given)).text)
    except (NotGathered, LlmctlError) as error:
        return [f"the log could not be read: {error}"]
    return list(lines)[-LOG_LINES:]


def write(path: Path, documents: Mapping[str, Any], given: Given) -> Written:
    """Write the archive, readable by its owner only. Raises what a write raises."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members(documents, given).items():
            data = text.encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(data))
    files.atomic_write(path, content.getvalue(), 0o600)
    return Written(str(path), len(content.getvalue()))
