"""The kernel's log since the boot: what NVIDIA's driver reports in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llmctl.core.checks.facts.gpu import Xid

KMSG = Path("/dev/kmsg")
RECORD_BYTES = 8192
# The ring holds no more; a reader that the kernel outruns must end.
MOST_RECORDS = 200_000
JOURNAL_SECONDS = 3.0
LINE_CHARACTERS = 300
MARK = b"NVRM: Xid"
# "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")


def xids(environ: Mapping[str, str]) -> tuple[Xid, ...] | None:
    """The driver's reports, the oldest first; None where this user may read neither the ring nor the journal.

    The ring is read first: the journal takes a process, and may be absent.
    """
    lines = from_ring()
    if lines is None:
        lines = from_journal(environ)
    return None if lines is None else tuple(xid for line in lines if (xid := parse(line)) is not None)


def parse(line: str) -> Xid | None:
    match = XID.search(line)
    return None if match is None else Xid(int(match[2]), line[match.start() :].strip()[:LINE_CHARACTERS])


def from_ring() -> list[str] | None:
    """Lines of /dev/kmsg, where each read gives one record; the prefix up to `;` is the kernel's own."""
    try:
        ring = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = []
    try:
        for _ in range(MOST_RECORDS):
            try:
                record = os.read(ring, RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                # Records were overwritten meanwhile; the next read goes on with the oldest.
                continue
            if not record:
                break
            if MARK in record:
                lines = record.decode("utf-8", "replace").splitlines()
                found += [line.partition(";")[2] or line for line in lines if not line.startswith(" ")]
    except OSError:
        return None
    finally:
        os.close(ring)
    return found


def from_journal(environ: Mapping[str, str]) -> list[str] | None:
    import subprocess

    argv = ["journalctl", "--dmesg", "--boot", "--output", "cat", "--no-pager", "--grep", "NVRM: Xid"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            argv, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, timeout=JOURNAL_SECONDS
        )
        # Without a match it ends with 1; who may not read it all is told so on stderr.
        if done.returncode in {0, 1} and not done.stderr:
            return done.stdout.decode("utf-8", "replace").splitlines()
    return None
