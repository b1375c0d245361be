"""Checks of where the store lies: who may use it, the room there, and on what disk it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from llmctl.core.checks.causes import NO_STORE, NOTHING_TO_RUN
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.store import Denied, StoreFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.words import GIB, MIB, names, size

# Beside what is pulled: manifests, notes about parts, what the file system keeps for itself (library/disk.py).
MARGIN_BYTES = 64 * MIB
LOW_BYTES = GIB
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "davfs"})
REMOTE_FUSE = ("sshfs", "rclone", "s3fs", "gcsfuse", "goofys", "glusterfs", "davfs", "cephfs", "gvfsd")
# What a disk that turns reads in a row, and the time from which one notices it.
SPINNING_BYTES_PER_SECOND = 150_000_000
SLOW_SECONDS = 30.0
NAMING = (
    "and name the folder in OLLAMA_MODELS where the server gets it: its unit's drop-in, or the shell of `llmctl up`"
)
WORDS = {"pass": "may not pass through", "read": "may not read", "write": "may not write to"}
Judge = Callable[[StoreFacts], Judgement]


def known(judge: Judge) -> Callable[[Facts], Judgement]:
    """Only where it is known which folder the store is."""
    return lambda facts: judge(facts.store) if facts.store.path else Unknown(facts.store.problem)


def quoted(path: str | None) -> str:
    return shlex.quote(path or "")


def unreadable(store: StoreFacts) -> Judgement:
    assert store.path is not None
    if store.there is False:
        if not store.used or not store.pinned_bytes:
            return None
        return Finding(
            "there is no such folder",
            f"a model store with {size(store.pinned_bytes)} of pinned models",
            Remedy(
                "if it is on a disk of its own, mount that one; else get the models again, which downloads them",
                (f"findmnt --target {quoted(store.path)}", f"{store.llmctl} up"),
            ),
            subject=store.path,
        )
    if store.readable:
        return None
    if not store.own:
        return Unknown(f"{store.problem}; its server is another user's")
    return Finding(
        store.problem,
        "folders and manifests that the server's user can read",
        Remedy("give them back to that user", (f"ls -la {quoted(store.path)}", owned_again(store))),
        subject=store.path,
    )


def owned_again(store: StoreFacts) -> str:
    return f"sudo chown -R {store.user or 'ollama'} {quoted(store.path)}"


def permissions(store: StoreFacts) -> Judgement:
    if store.user is None:
        return Unknown("who runs the server is not known")
    if store.read_only:
        return Finding(
            f"{store.mounted_at} is mounted read-only: models are served from it, and none can be added or mended",
            "a file system that takes writes",
            Remedy(
                "find out why (a disk with errors is mounted so), then mount it for writing",
                (f"findmnt --target {quoted(store.path)}", f"sudo mount -o remount,rw {quoted(store.mounted_at)}"),
            ),
            subject=store.path or "",
            severity="warning",
        )
    if store.unjudged and not store.denied:
        return Unknown(f"what {store.user} may do with {names(store.unjudged)} cannot be seen by this user")
    return [barred(store, one) for one in store.denied]


def barred(store: StoreFacts, one: Denied) -> Finding:
    return Finding(
        f"{store.user}, who runs the server, {WORDS[one.needs]} {one.path} (mode {one.mode}, of {one.owner})",
        "every folder above the store passable, the store itself readable and writable for that user",
        Remedy(
            "let that user in, then start the server anew", (f"sudo {letting_in(store, one)}", f"{store.llmctl} up")
        ),
        subject=one.path,
    )


def letting_in(store: StoreFacts, one: Denied) -> str:
    """Nothing above the store is changed but its own mode, and never what else lies there."""
    path = quoted(one.path)
    if one.needs == "write" and not within(one, store):
        return f"install -d -o {store.user} -m 0755 {quoted(store.path)}"
    if one.owner == store.user:
        return f"chmod u+rwx {path}"
    if one.needs == "pass" or not within(one, store):
        return f"chmod o+x {path}"
    return f"chmod -R o+rX {path}" if one.needs == "read" else f"chown -R {store.user} {quoted(store.path)}"


def within(one: Denied, store: StoreFacts) -> bool:
    return one.path == store.path or one.path.startswith(f"{store.path}/")


def space(store: StoreFacts) -> Judgement:
    free, total = store.free_bytes, store.total_bytes
    if free is None or total is None:
        return Unknown("the file system does not tell its free space")
    short = store.needed_bytes and free < store.needed_bytes + MARGIN_BYTES
    low = min(LOW_BYTES, total // 20)
    if not short and free >= low:
        return None
    needs = f"{size(store.needed_bytes)} for what is pinned and not there yet, and " if short else ""
    held = [
        f"{size(count)} are {what}"
        for count, what in (
            (store.partial_bytes, "downloads that broke off"),
            (store.leftover_bytes, "blobs that no model names"),
        )
        if count
    ]
    return Finding(
        f"{size(free)} of {size(total)} are free below it",
        f"{needs}{size(MARGIN_BYTES if short else low)} that stay free",
        Remedy(
            "make room: see what may go from the store, and what else is on the disk",
            (f"{store.llmctl} prune --dry-run", f"df -h {quoted(store.mounted_at or store.path)}"),
        ),
        tuple(held),
        store.path or "",
        None if short or free < min(MARGIN_BYTES, total // 100) else "warning",
    )


def network_disk(store: StoreFacts) -> Judgement:
    if store.file_system is None:
        return Unknown("the kernel does not tell the file system")
    kind = store.file_system
    if kind not in NETWORK and not (kind.startswith("fuse.") and kind[5:].startswith(REMOTE_FUSE)):
        return None
    return Finding(
        f"it lies on {kind} ({store.source or 'unknown source'}), mounted at {store.mounted_at}",
        "a disk of this machine: a load reads every byte of the weights, and a server whose disk goes away hangs",
        Remedy(
            f"copy the models to a disk of this machine that has {size(store.pinned_bytes)} free, {NAMING}",
            (f"findmnt --target {quoted(store.path)}", "df -h --local"),
        ),
        subject=store.path or "",
    )


def spinning_disk(store: StoreFacts) -> Judgement:
    seconds = store.pinned_bytes / SPINNING_BYTES_PER_SECOND
    if seconds < SLOW_SECONDS:
        return None
    if store.rotational is None:
        return Unknown("the kernel does not tell whether the disk turns")
    if not store.rotational:
        return None
    return Finding(
        f"{store.source} turns: {size(store.pinned_bytes)} of weights take some {seconds:.0f} s to read at "
        f"{SPINNING_BYTES_PER_SECOND // 10**6} MB/s, at every load that the page cache does not have",
        "an SSD, or models that stay loaded",
        Remedy(
            f"where there is an SSD, copy the models to it, {NAMING}",
            (f"findmnt --target {quoted(store.path)}", "lsblk -o NAME,ROTA,SIZE,FSAVAIL,MOUNTPOINT"),
        ),
        subject=store.path or "",
    )


CHECKS = (
    Check(
        "store.permissions",
        "The server's user may not use the store",
        "error",
        "Every folder above the store must be passable for the user who runs the server, and the store itself readable "
        "and writable. Ollama ends otherwise with `mkdir …: permission denied: ensure path elements are traversable` "
        "(ollama/ollama issues 2147, 2701, 9337, 9877, 16378). Modes are looked at; where an access list adds to "
        "them, the answer is unknown. A file system that is mounted read-only is told here too.",
        known(permissions),
        after=NOTHING_TO_RUN,
    ),
    Check(
        "store.unreadable",
        "The model store cannot be read",
        "error",
        "The folder that the profile's server takes its models from: that it is there, and that its lists can be read. "
        "A disk that is not mounted looks like a machine without models.",
        known(unreadable),
        after=(*NOTHING_TO_RUN, "store.permissions"),
    ),
    Check(
        "store.space",
        "The disk of the store is full, or nearly",
        "error",
        "Free space against what the pins still need, and against 1 GiB or 5 % of the disk, whichever is less. Ollama "
        "looks at no free space before a pull (ollama/ollama issues 6727, 1731, 14254), and its unfinished files are "
        "sparse, so that here their blocks count and not their length (ollama v0.33.0 server/download.go).",
        known(space),
        after=NO_STORE,
    ),
    Check(
        "store.network-disk",
        "The store is on a network file system",
        "warning",
        "The type of the mount that the store is on, from /proc/self/mountinfo. A load reads the whole file; a stall "
        "of the network for longer than OLLAMA_LOAD_TIMEOUT ends it (ollama v0.33.0 envconfig/config.go:149), and "
        "NFS that is gone leaves the server in a sleep that no signal ends.",
        known(network_disk),
        after=NO_STORE,
    ),
    Check(
        "store.spinning-disk",
        "The store is on a disk that turns",
        "info",
        "The kernel's queue/rotational of the disk. Told only where the pinned weights would take 30 s or more to "
        "read at 150 MB/s; a virtual machine's disks say that they turn whatever they are, and are left out.",
        known(spinning_disk),
        after=(*NO_STORE, "store.network-disk"),
    ),
)
