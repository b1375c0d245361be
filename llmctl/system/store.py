"""Ollama's model store on disk: manifests by name, blobs by digest, and what unfinished downloads left.

Layout (ollama v0.34.0 manifest/paths.go): `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<64 hex>`;
`blobs/sha256-<hex>-partial` is a sparse file of an unfinished pull and `…-partial-<N>` the note of one of its parts.
llmctl's own unfinished files lie in `.llmctl/` beside them: on the same file system, so that a rename finishes
them, and out of `blobs/`, where Ollama deletes what it does not know when it starts. The server lists the folder
anew at every request, so nothing here needs one, and a running one sees every change.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.model import ModelRef
from llmctl.errors import LlmctlError, NotFound, UsageError
from llmctl.system.files import exclusive_folder, make_folder, read_bounded, sync_folder, translated, write_through

LARGEST_MANIFEST_BYTES = 4 << 20
SCRATCH = ".llmctl"
FILE_MODE = 0o644
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_PARTIAL = re.compile(r"sha256-([0-9a-f]{64})-partial(-\d+)?")


@dataclass(frozen=True)
class StoredFile:
    """One file of `blobs/`. `size_bytes` is its length, `disk_bytes` what it takes: a partial download is sparse.

    `digest` is `sha256:<64 hex>` by its name, which nobody has hashed. None for a name that Ollama does not know.
    """

    path: Path
    digest: str | None
    partial: bool
    size_bytes: int
    disk_bytes: int
    modified_seconds: float


class Store:
    """The model store at `path`. Reading needs nothing but the right to read; OSError ends here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def blobs_folder(self) -> Path:
        return self.path / "blobs"

    @property
    def scratch(self) -> Path:
        """Where llmctl's unfinished files lie. Not made by asking."""
        return self.path / SCRATCH

    def blob(self, digest: str) -> Path:
        """Where the blob `sha256:<64 hex>` lies or would lie."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise ValueError(f"not a digest: {digest!r}")
        return self.blobs_folder / digest.replace(":", "-")

    def manifest_path(self, ref: ModelRef) -> Path:
        """Where the manifest of `ref` lies or would lie. Ollama keeps the case that a name first came in."""
        path = self.path / "manifests"
        with translated("look for", path / ref.full):
            for part in (ref.host, ref.namespace, ref.model, ref.tag):
                exact = path / part
                path = exact if exact.exists() else next(iter(_same_but_for_case(path, part)), exact)
        return path

    def manifest(self, ref: ModelRef) -> bytes | None:
        """The bytes of a manifest, None where the store has no such name. LlmctlError where it cannot be read."""
        try:
            return read_bounded(self.manifest_path(ref), LARGEST_MANIFEST_BYTES)
        except NotFound:
            return None

    def names(self) -> Iterator[ModelRef]:
        """Every name with a manifest, in no order. Files that Ollama would not list are left out."""
        return (ref for ref, _ in self.manifests())

    def manifests(self) -> Iterator[tuple[ModelRef, str]]:
        """Every name with the path of its manifest, in no order."""
        root = self.path / "manifests"
        for host, namespace, model in _folders(root, 3):
            for entry in _entries(root / host / namespace / model):
                try:
                    ref = ModelRef.parse(f"{host}/{namespace}/{model}:{entry.name}")
                except UsageError:
                    continue
                if entry.is_file():
                    yield ref, entry.path

    def files(self) -> Iterator[StoredFile]:
        """What lies in `blobs/`, in no order: blobs, unfinished pulls, and what is neither."""
        for entry in _entries(self.blobs_folder):
            with suppress(FileNotFoundError):
                # A symlink counts as what it points to; one that points nowhere is no blob.
                found = entry.stat()
                whole, part = _BLOB.fullmatch(entry.name), _PARTIAL.fullmatch(entry.name)
                match = whole or part
                yield StoredFile(
                    Path(entry.path),
                    f"sha256:{match.group(1)}" if match else None,
                    part is not None,
                    found.st_size,
                    found.st_blocks * 512,
                    found.st_mtime,
                )

    def scratch_files(self) -> Iterator[StoredFile]:
        """What unfinished verbs of llmctl left. Nothing where this user may not look: they are another user's."""
        try:
            top = self._open_scratch()
        except (OSError, LlmctlError):
            return
        try:
            # Below the descriptor: what is walked is the folder that was judged, and links are not followed.
            for folder, _, names, descriptor in os.fwalk(".", dir_fd=top):
                for name in names:
                    with suppress(OSError):
                        found = os.lstat(name, dir_fd=descriptor)
                        path = self.scratch / folder / name
                        size_bytes, disk_bytes = found.st_size, found.st_blocks * 512
                        yield StoredFile(path, None, True, size_bytes, disk_bytes, found.st_mtime)
        finally:
            os.close(top)

    def place(self, temporary: Path, digest: str) -> None:
        """Make a finished file of the scratch folder the blob `digest`. The caller has hashed it.

        It gets Ollama's mode and, where llmctl may give files away, the owner of the folder. A symlink in its
        place is replaced, not followed; a reader of the old blob keeps the old bytes.
        """
        target = self.blob(digest)
        with translated("write", target):
            self._finish(temporary, target)

    def write_manifest(self, ref: ModelRef, content: bytes) -> None:
        """Give `ref` the manifest `content`, as a whole. Its blobs come first, or a server could serve half of it."""
        target = self.manifest_path(ref)
        temporary = self.make_scratch() / f"manifest-{os.urandom(8).hex()}"
        with translated("write", target):
            try:
                write_through(temporary, content, FILE_MODE)
                self._finish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def remove_manifest(self, ref: ModelRef) -> None:
        """Forget a name. Its blobs stay. Folders that became empty go, as Ollama does it."""
        path = self.manifest_path(ref)
        with translated("delete", path):
            path.unlink(missing_ok=True)
        for folder in list(path.parents)[:3]:
            with suppress(OSError):
                folder.rmdir()

    def make_scratch(self) -> Path:
        """The scratch folder, made where it is missing. LlmctlError where a link or another user's is in its place."""
        self._make_folder(self.path)
        with translated("make", self.scratch):
            os.close(self._open_scratch(make=True))
        return self.scratch

    def _open_scratch(self, *, make: bool = False) -> int:
        """A descriptor of the scratch folder, which is the owner's of the store, or this user's. OSError passes.

        The owner of a store may put a link there, to have root write and delete elsewhere.
        """
        store = os.open(self.path, _FOLDER)
        try:
            made = make and _made(store, SCRATCH)
            if stat.S_ISLNK(os.lstat(SCRATCH, dir_fd=store).st_mode):
                raise LlmctlError(
                    f"{self.scratch} is a link; llmctl keeps unfinished files there", f"rm {self.scratch}"
                )
            scratch = os.open(SCRATCH, _FOLDER | os.O_NOFOLLOW, dir_fd=store)
            try:
                owner = os.fstat(store)
                if made:
                    _give(scratch, owner)
                if os.fstat(scratch).st_uid not in {owner.st_uid, os.geteuid()}:
                    raise LlmctlError(f"{self.scratch} belongs to another user", f"ls -ld {self.path} {self.scratch}")
            except BaseException:
                os.close(scratch)
                raise
            return scratch
        finally:
            os.close(store)

    @contextmanager
    def changing(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other llmctl from changing this store meanwhile; `waiting` is called once where one is at it.

        The lock is on the folder itself, so that users who share a store share the lock, and nothing is written.
        """
        self._make_folder(self.path)
        with exclusive_folder(self.path, waiting):
            yield

    def _make_folder(self, folder: Path) -> None:
        """Make a folder inside the store, owned as the nearest one around it that is there."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        make_folder(folder)
        with translated("make", folder):
            for each in reversed(missing):
                descriptor = os.open(each, _FOLDER | os.O_NOFOLLOW)
                try:
                    _give(descriptor, each.parent.stat())
                finally:
                    os.close(descriptor)

    def _finish(self, temporary: Path, target: Path) -> None:
        """Move a whole file to where a server sees it, with the mode and owner that one expects."""
        self._make_folder(target.parent)
        # Who may write into the folder may have put a link there: the file itself is judged, and then changed.
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LlmctlError(f"{temporary} is no regular file")
            _give(descriptor, target.parent.stat())
            os.fchmod(descriptor, FILE_MODE)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        sync_folder(target.parent)


def _made(folder: int, name: str) -> bool:
    """Make a folder for its owner alone; False where something of that name is there."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _give(descriptor: int, owner: os.stat_result) -> None:
    """Root writes into other users' stores: what it makes there belongs to whom the folder belongs."""
    found = os.fstat(descriptor)
    if os.geteuid() != 0 or (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid):
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise LlmctlError("a file that has another name elsewhere is not given away", code="file_error")
    os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _same_but_for_case(folder: Path, name: str) -> Iterator[Path]:
    wanted = name.casefold()
    return (folder / entry.name for entry in _entries(folder) if entry.name.casefold() == wanted)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing where there is none."""
    with translated("read", folder):
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
    return iter(found)


def _folders(root: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """The names of the folders `depth` levels below `root`."""
    for entry in _entries(root):
        if entry.is_dir():
            below: Iterator[tuple[str, ...]] = iter([()]) if depth == 1 else _folders(root / entry.name, depth - 1)
            for names in below:
                yield (entry.name, *names)
