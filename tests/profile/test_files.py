"""Files are written as a whole or not at all, read within bounds, and OSError never gets out."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from llmctl.errors import DiskFull, LlmctlError, NotFound
from llmctl.system import files


def test_a_write_makes_folders_and_replaces_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    files.atomic_write(path, "long content")
    files.atomic_write(path, b"short")
    assert path.read_bytes() == b"short"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    files.atomic_write(path, "secret", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symlink_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "dotfiles/profile.yaml", tmp_path / "profile.yaml"
    files.atomic_write(target, "old")
    link.symlink_to(target)
    files.atomic_write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.real("tmpfs")
def test_a_full_disk_keeps_the_old_file(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(1 << 20) / "file"
    files.atomic_write(path, "old")
    with pytest.raises(DiskFull, match="no space left") as caught:
        files.atomic_write(path, b"x" * (2 << 20))
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    assert caught.value.hint == f"df -h {path.parent}"


@pytest.mark.real("tmpfs")
def test_a_read_only_file_system_is_said(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1 << 20)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(LlmctlError, match="read-only") as caught:
        files.atomic_write(folder / "new/file", "x")
    assert caught.value.code == "read_only"
    assert str(folder) in caught.value.message


def test_a_folder_without_the_right_to_write(
    tmp_path: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with unprivileged(), pytest.raises(LlmctlError, match="permission denied") as caught:
        files.atomic_write(folder / "file", "x")
    assert str(folder / "file") in caught.value.message
    assert caught.value.hint is not None
    assert str(folder) in caught.value.hint


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert files.read_bounded(path, 100) == b"x" * 100
    with pytest.raises(LlmctlError, match="larger than 99 bytes"):
        files.read_bounded(path, 99)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LlmctlError, match="no regular file"):
        files.read_bounded(tmp_path / "pipe", 10)
    with pytest.raises(LlmctlError, match="it is a folder"):
        files.read_bounded(tmp_path, 10)
    with pytest.raises(LlmctlError, match="no regular file"):
        files.read_bounded("/dev/zero", 10)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        files.read_bounded(tmp_path / "nothing", 10)


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LlmctlError, match="cannot write"):
        files.atomic_write(tmp_path / "file/below", "x")


HOLDER = """
import sys
import tempfile
from llmctl.system import files
with files.exclusive(sys.argv[1], lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_lets_one_in_and_dies_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "folder/up.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with files.exclusive(lock, waiting.set):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(10)
    assert not entered.is_set()
    holder.kill()
    holder.communicate()
    assert entered.wait(10)
    thread.join()


def test_a_free_lock_does_not_wait(tmp_path: Path) -> None:
    with files.exclusive(tmp_path / "lock", lambda: pytest.fail("nobody holds it")):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as another user")
def test_what_one_thread_does_as_the_owner_no_other_thread_is() -> None:
    # Not below tmp_path, into which only the user of the tests may look.
    with tempfile.TemporaryDirectory() as name:
        mine, theirs = Path(name) / "mine", Path(name) / "theirs"
        Path(name).chmod(0o755)
        mine.mkdir(0o700)
        theirs.mkdir()
        os.chown(theirs, 12345, 23456)
        inside, looked = threading.Event(), threading.Event()

        def owner() -> None:
            with files.as_owner(theirs / "new"):
                inside.set()
                assert looked.wait(60)
                (theirs / "new").touch()
                with pytest.raises(PermissionError):
                    (mine / "new").touch()

        with ThreadPoolExecutor(1) as pool:
            acting = pool.submit(owner)
            assert inside.wait(60)
            try:
                (mine / "read").touch()
            finally:
                looked.set()
            acting.result()
        found = (theirs / "new").stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456)
        assert [each.name for each in mine.iterdir()] == ["read"]
