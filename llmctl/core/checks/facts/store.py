"""The model store on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Denied:
    """A folder or file that the server's user may not use as it must. `needs`: pass, read or write."""

    path: str
    mode: str
    owner: str
    needs: Literal["pass", "read", "write"]


@dataclass(frozen=True)
class Trouble:
    """One model with what is wrong about it. `wanted`: the profile names it. `mend` is the verb that mends
    it: up where a server made it here, and only one makes it again."""

    name: str
    words: str
    path: str = ""
    wanted: bool = True
    mend: Literal["repair", "pull", "up"] = "repair"


@dataclass(frozen=True)
class OtherStoreFacts:
    """Another store. `lacking` are names that it has and this one has not, `wanted` those of them that are the
    profile's."""

    path: str
    models: int
    lacking: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreFacts:
    """`path` None: no store of this machine is known, and `problem` says why. `readable` False: `problem` says why
    this user sees nothing of it; `there`: it is a folder, None where that may not be looked at.

    `denied` is what its user may not do, `unjudged` of which paths nobody can tell: an access list adds to the mode,
    or this user may not look. `user` is who runs the server, None where that is unknown, `own` whether that is who
    asks.
    `free_bytes` is for that user's files, `needed_bytes` what the profile's pins still need of it. `partial_bytes` is
    disk space of unfinished downloads that nobody goes on with (sparse files counted by their blocks),
    `leftover_bytes` that of blobs which no manifest names. `pinned_bytes`: all blobs of the profile's pins.
    `private`: it is the store of a private profile. `file_system`: its type (ext4, nfs4, …), `rotational`: a spinning
    disk, None where the kernel does not tell. `llmctl` is how llmctl is called with the rights that this store needs,
    `served` whether its server runs.
    """

    path: str | None
    problem: str = ""
    there: bool | None = None
    readable: bool = False
    served: bool = False
    user: str | None = None
    own: bool = False
    used: bool = False
    models: int = 0
    free_bytes: int | None = None
    total_bytes: int | None = None
    needed_bytes: int = 0
    pinned_bytes: int = 0
    partial_bytes: int = 0
    partials: int = 0
    leftover_bytes: int = 0
    leftovers: int = 0
    denied: tuple[Denied, ...] = ()
    unjudged: tuple[str, ...] = ()
    read_only: bool = False
    writable_by_others: tuple[str, ...] = ()
    private: bool = False
    others: tuple[OtherStoreFacts, ...] = ()
    missing: tuple[Trouble, ...] = ()
    corrupt: tuple[Trouble, ...] = ()
    drifted: tuple[Trouble, ...] = ()
    file_system: str | None = None
    mounted_at: str | None = None
    source: str | None = None
    rotational: bool | None = None
    llmctl: str = "llmctl"
