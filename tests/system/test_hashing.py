"""Hashing files: the right digest for every size, told of on the way, and no file left open."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

from llmctl.system.hashing import PIECE_BYTES, sha256_of


@pytest.mark.parametrize("size_bytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 77])
def test_the_digest_is_that_of_the_bytes(tmp_path: Path, size_bytes: int) -> None:
    content = random.Random(size_bytes).randbytes(size_bytes)
    path = tmp_path / "file"
    path.write_bytes(content)
    heard: list[int] = []
    found = sha256_of(path, heard.append)
    assert found.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert found.size_bytes == sum(heard) == size_bytes


def test_holes_are_zeros(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 5 * PIECE_BYTES)
    assert sha256_of(path).digest == f"sha256:{hashlib.sha256(bytes(5 * PIECE_BYTES)).hexdigest()}"


def test_a_link_is_followed_and_what_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert sha256_of(tmp_path / "link") == sha256_of(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        sha256_of(tmp_path)


def test_a_file_that_grows_and_vanishes_meanwhile_is_hashed_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * PIECE_BYTES)

    def grow(size_bytes: int) -> None:
        if path.exists():
            with path.open("ab") as file:
                file.write(b"b")
            path.unlink()

    found = sha256_of(path, grow)
    assert found.size_bytes == PIECE_BYTES + 1
    assert found.digest == f"sha256:{hashlib.sha256(b'a' * PIECE_BYTES + b'b').hexdigest()}"


def test_who_listens_may_end_it_and_no_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PIECE_BYTES))
    before = len(list(Path("/proc/self/fd").iterdir()))

    def enough(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sha256_of(path, enough)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_two_files_are_hashed_at_once(tmp_path: Path) -> None:
    """Each thread waits in its file for the other: alone, one after the other, neither would end."""
    met = threading.Barrier(2, timeout=60)
    done: list[str] = []

    def hash_one(name: str) -> None:
        path = tmp_path / name
        path.write_bytes(name.encode() * PIECE_BYTES)
        first = threading.Event()

        def meet(_: int) -> None:
            if not first.is_set():
                first.set()
                met.wait()

        done.append(sha256_of(path, meet).digest)

    threads = [threading.Thread(target=hash_one, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(f"sha256:{hashlib.sha256(name * PIECE_BYTES).hexdigest()}" for name in (b"a", b"b"))
