"""Where the server listens, whether it asks the cloud, what is known of its release, who may read llmctl's secrets."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import parse_host
from llmctl.core.checks.facts.security import Readable, SecurityFacts
from llmctl.errors import LlmctlError
from llmctl.system import cves, process
from llmctl.workflows.install import CREDENTIALS

if TYPE_CHECKING:
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.core.cves import Table
    from llmctl.system.paths import Paths
    from llmctl.workflows.gather import Given


def gather(given: Given) -> SecurityFacts:
    server = given.of_server
    faults = known_faults()
    here = SecurityFacts(
        (), None, tuple(readable(given.server.paths)), faults, cves.age_days(faults) if faults is not None else 0
    )
    if not server.answers:
        return here
    return replace(here, addresses=addresses(server), cloud_disabled=cloud_disabled(given, server.url))


def known_faults() -> Table | None:
    try:
        return cves.table()
    except LlmctlError:
        return None


def addresses(server: ServerFacts) -> tuple[str, ...] | None:
    """None for a server of another machine, or of a container, whose table of sockets is its own."""
    address = parse_host(server.url, "the server's address")
    if not address.local or (server.process is not None and not server.process.here):
        return None
    return process.listening_addresses(address.port) or None


def cloud_disabled(given: Given, url: str) -> bool | None:
    try:
        return given.client(url).cloud_disabled()
    except LlmctlError:
        return None


def readable(paths: Paths) -> Iterator[Readable]:
    """Files for their owner's eyes alone that anybody can reach and read."""
    for folder in (paths.config / CREDENTIALS, paths.logs):
        for path in files(folder):
            try:
                mode = path.stat().st_mode
                if mode & stat.S_IROTH and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents):
                    yield Readable(str(path), f"{stat.S_IMODE(mode):04o}")
            except OSError:
                continue


def files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
