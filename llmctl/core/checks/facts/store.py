"""The model store on the disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parent:
    """A folder above the store, or the store itself. `passable`: whether the server's user may go through it."""

    path: str
    mode: str
    owner: str | None
    passable: bool | None


@dataclass(frozen=True)
class Trouble:
    """One model with what is wrong about it."""

    name: str
    words: str
    path: str = ""


@dataclass(frozen=True)
class OtherStoreFacts:
    path: str
    models: int


@dataclass(frozen=True)
class StoreFacts:
    """`path` None: no store here can be read; `problem` says why. `partial_bytes` is disk space of unfinished
    downloads (sparse files counted by their blocks), `leftover_bytes` of what nothing names any more.

    `file_system`: its type (ext4, nfs4, …), `rotational`: a spinning disk, None where the kernel does not tell.
    """

    path: str | None
    problem: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    needed_bytes: int | None = None
    partial_bytes: int = 0
    partials: int = 0
    leftover_bytes: int = 0
    leftovers: int = 0
    parents: tuple[Parent, ...] = ()
    writable_by_others: tuple[str, ...] = ()
    others: tuple[OtherStoreFacts, ...] = ()
    missing: tuple[Trouble, ...] = ()
    corrupt: tuple[Trouble, ...] = ()
    drifted: tuple[Trouble, ...] = ()
    file_system: str | None = None
    rotational: bool | None = None
