"""Who may reach the server, and what it gives away."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.cves import Table


@dataclass(frozen=True)
class Readable:
    """A file that others than its owner may read."""

    path: str
    mode: str


@dataclass(frozen=True)
class SecurityFacts:
    """`addresses`: where the server's port is listened on, None where that cannot be seen. `cloud_disabled`: as the
    server says it, None where it does not. `readable` are llmctl's own files with secrets. `faults` is the table of the
    engine's known faults, None where it cannot be read, and `faults_age_days` how old it is at the most."""

    addresses: tuple[str, ...] | None = None
    cloud_disabled: bool | None = None
    readable: tuple[Readable, ...] = ()
    faults: Table | None = None
    faults_age_days: int = 0
