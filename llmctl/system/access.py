"""Whether a user may use a file or folder, by its mode: what only that user's own try would tell for certain."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, PASS = os.R_OK, os.W_OK, os.X_OK
ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Identity:
    """A user as the kernel judges it."""

    uid: int
    groups: frozenset[int]

    @property
    def own(self) -> bool:
        """Whether it is who asks."""
        return self.uid == os.geteuid()


def myself() -> Identity:
    return Identity(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def of_process(pid: int) -> Identity | None:
    """Who runs a process: proc(5), the effective numbers in /proc/PID/status."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        said = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        return Identity(int(said["Uid"][1]), frozenset({int(said["Gid"][1]), *map(int, said.get("Groups", []))}))
    except (OSError, KeyError, IndexError, ValueError):
        return None


def of_name(user: str) -> Identity | None:
    """A user of this machine, with all groups."""
    import pwd

    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return None
    return Identity(found.pw_uid, frozenset(os.getgrouplist(user, found.pw_gid)))


def may(who: Identity, path: Path, wanted: int) -> bool | None:
    """Whether `who` may do all of `wanted` with `path`; None where this user may not know. OSError for what is not
    there."""
    # A server that was started before its user came into a group has not what this process has.
    if who == myself():
        path.stat()
        return os.access(path, wanted)
    try:
        found = path.stat()
    except PermissionError:
        return None
    if who.uid == 0:
        return True
    if has_acl(path):
        return None
    return (bits(who, found) & wanted) == wanted


def bits(who: Identity, found: os.stat_result) -> int:
    """The three bits that count for `who`: only those of the first class that it is in."""
    mode = stat.S_IMODE(found.st_mode)
    if who.uid == found.st_uid:
        return mode >> 6 & 7
    return (mode >> 3 if found.st_gid in who.groups else mode) & 7


def has_acl(path: Path) -> bool:
    """Whether more than the mode says who may what."""
    try:
        return ACL in os.listxattr(path)
    except OSError:
        return False
