"""A disk that is full or takes no writes, before, during and after."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.faults import fault
from tests.faults.conftest import MIB, Box
from tests.registry_server import Registry

pytestmark = [pytest.mark.real("ollama"), pytest.mark.real("tmpfs")]

SmallDisk = Callable[[int], Path]


def fill(disk: Path, *, leave_bytes: int = 0) -> Path:
    """A file that takes the rest of the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(MIB >> 4)):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - leave_bytes))
    return filler


@pytest.fixture
def cramped(ollama_server: StartOllama, registry: Registry, small_disk: SmallDisk, tmp_path: Path) -> Box:
    """A box whose store lies on a disk of 100 MiB: room for a pull of 16 MiB and what is kept free beside it."""
    return Box(ollama_server(models=small_disk(100 * MIB) / "models"), registry, tmp_path / "config")


@fault(
    what="The disk has no room for the model",
    how="100 MiB in all, 64 of them asked for",
    happens="exit 1, `disk_full`, with both numbers, before anything is downloaded",
    left="nothing",
)
def test_no_room(cramped: Box) -> None:
    model = cramped.publish(size_bytes=64 * MIB)
    done = cramped("pull", model.name)
    assert done.code == 1
    assert "MiB free" in done.err
    assert "hint: df -h" in done.err
    assert cramped.registry.sent[model.weights] == 0
    cramped.nothing_happened()


@fault(
    what="The disk fills up during a pull",
    how="another file takes the rest of it when the first bytes of the weights come",
    happens="exit 1, `disk_full`, with `df -h`; with room again, the next pull ends well",
    left="Ollama's `-partial`",
)
def test_full_during_pull(cramped: Box) -> None:
    model = cramped.publish(size_bytes=16 * MIB)
    fillers: list[Path] = []

    def fill_once(digest: str) -> None:
        if digest == model.weights and not fillers:
            fillers.append(fill(cramped.store.parent))

    cramped.registry.streamed = fill_once
    done = cramped("pull", model.name)
    assert done.code == 1, done.err
    assert "the disk is full" in done.err
    assert "hint: df -h" in done.err
    cramped.nothing_happened()
    fillers[0].unlink()
    assert cramped("pull", model.name).code == 0
    cramped.sound()


@fault(
    what="The disk fills up during a repair",
    how="another file takes the rest of it when the first bytes come",
    happens="exit 1, `disk_full`; with room again, the next repair asks for the rest, and for the rest only",
    left="the bad blob where it was, and what came in `.llmctl/`",
)
def test_full_during_repair(cramped: Box) -> None:
    model = cramped.pulled(size_bytes=16 * MIB)
    flip(cramped.blob(model.weights))
    fillers: list[Path] = []
    cramped.registry.sent.clear()

    def fill_once(digest: str) -> None:
        if digest == model.weights and not fillers and cramped.registry.sent[digest] >= 4 * MIB:
            fillers.append(fill(cramped.store.parent, leave_bytes=MIB))

    cramped.registry.streamed = fill_once
    done = cramped("repair", "--yes")
    assert done.code == 1, done.err
    assert "no space left" in done.err
    cramped.sound(bad={model.weights})
    fillers[0].unlink()
    before = cramped.registry.sent[model.weights]
    assert cramped("repair", "--yes").code == 0
    assert cramped.registry.sent[model.weights] - before < model.size_bytes - 2 * MIB
    cramped.sound()


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@fault(
    what="The disk of the lock is full",
    how="the profile's folder on a file system without a free block",
    happens="exit 1, `disk_full`, with the lock's path; with room again, the next pull downloads nothing",
    left="the lock as it was; the model, not pinned",
)
def test_no_room_for_the_lock(box: Box, small_disk: SmallDisk) -> None:
    first = box.pulled("first")
    disk = small_disk(MIB)
    for path in (box.folder / "profile.yaml", box.lock_path):
        (disk / path.name).write_bytes(path.read_bytes())
    box.folder = disk
    box.__post_init__()
    second = box.publish("second")
    filler = fill(disk)
    before = box.lock_path.read_bytes()
    done = box("pull", second.name)
    assert done.code == 1
    assert "no space left" in done.err
    assert str(disk) in done.err
    assert box.lock_path.read_bytes() == before
    filler.unlink()
    box.registry.sent.clear()
    assert box("pull", second.name).code == 0
    assert box.registry.sent[second.weights] == 0
    assert [pin.name for pin in box.lock.models] == [first.name, second.name]
    box.sound()


@fault(
    what="The disk of the state folder is full",
    how="llmctl's state folder on a file system without a free block",
    happens="`verify` hashes everything and says what it found; only its notes for `--since` are lost",
    left="nothing new",
)
def test_no_room_for_notes(box: Box, small_disk: SmallDisk) -> None:
    model = box.pulled()
    disk = small_disk(MIB)
    (disk / "state").mkdir()
    fill(disk)
    box.environ["LLMCTL_STATE_DIR"] = str(disk / "state")
    assert box("verify").code == 0
    flip(box.blob(model.weights))
    assert box.reported() == {model.weights}


@fault(
    what="The store is read-only",
    how="its file system mounted read-only after the first model was pulled",
    happens="`verify` works; `pull`, `repair` and `prune` exit 1 and name the store",
    left="the store as it was",
)
def test_read_only_store(cramped: Box) -> None:
    first = cramped.pulled("first")
    second = cramped.publish("second")
    flip(cramped.blob(first.weights))
    disk = cramped.store.parent
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    assert cramped.reported() == {first.weights}
    for words in (["pull", second.name], ["repair", "--yes"]):
        done = cramped(*words)
        assert done.code == 1, f"{words}: {done.err}"
        assert "read-only" in done.err, words
        assert "hint: " in done.err, words
    assert [pin.name for pin in cramped.lock.models] == [first.name]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, capture_output=True)
    cramped.sound(bad={first.weights})
    assert cramped("repair", "--yes").code == 0
    cramped.sound()
