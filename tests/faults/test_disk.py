"""A disk that is full or takes no writes, before, during and after."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.faults import fault
from tests.faults.conftest import MIB, Box, finished
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
    return Box(ollama_server(models=small_disk(100 * MIB) / "models"), registry, tmp_path / "cramped")


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
    what="The store is read-only and a pull is asked for",
    how="its file system mounted read-only after the first model was pulled",
    happens="`verify` works; `pull` exits 1 and names the reason",
    left="the store and the lock as they were",
)
def test_read_only_store(cramped: Box) -> None:
    first = cramped.pulled("first")
    second = cramped.publish("second")
    disk = cramped.store.parent
    remount(disk, "ro")
    assert cramped.reported() == set()
    done = cramped("pull", second.name)
    assert done.code == 1, done.err
    assert "read-only" in done.err
    assert "hint: " in done.err
    assert [pin.name for pin in cramped.lock.models] == [first.name]
    remount(disk, "rw")
    cramped.sound()


@fault(
    what="The store is read-only and a repair is needed",
    how="a blob damaged, then its file system mounted read-only",
    happens="`verify` exits 5; `repair` exits 1 before anything is downloaded and names the reason",
    left="the bad blob where it was",
)
def test_repair_of_a_read_only_store(cramped: Box) -> None:
    model = cramped.pulled()
    flip(cramped.blob(model.weights))
    disk = cramped.store.parent
    remount(disk, "ro")
    cramped.registry.sent.clear()
    assert cramped.reported() == {model.weights}
    done = cramped("repair", "--yes")
    assert done.code == 1, done.err
    assert str(cramped.store) in done.err
    assert "read-only" in done.err
    assert not cramped.registry.sent
    remount(disk, "rw")
    cramped.sound(bad={model.weights})
    assert cramped("repair", "--yes").code == 0
    cramped.sound()


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True, capture_output=True)


@fault(
    what="The disk fills up during an import",
    how="another file takes the rest of it when the first bytes of the weights are copied",
    happens="exit 1, `disk_full`; with room again, the next import ends well",
    left="nothing that a server sees",
)
def test_full_during_import(box: Box, cramped: Box) -> None:
    model = box.pulled(size_bytes=24 * MIB)
    archive = box.folder / "model.tar"
    assert box("export", model.name, "-o", str(archive)).code == 0
    disk = cramped.store.parent
    process = cramped.start("import", "-", "--yes", stdin=subprocess.PIPE)
    assert process.stdin is not None
    content = archive.read_bytes()
    process.stdin.buffer.write(content[: 12 * MIB])
    process.stdin.buffer.flush()
    filler = fill(disk, leave_bytes=MIB)
    with suppress(BrokenPipeError):
        process.stdin.buffer.write(content[12 * MIB :])
    done = finished(process)
    assert done.code == 1, done
    assert "no space left" in done.err
    assert cramped.tags() == {}
    cramped.sound()
    filler.unlink()
    assert cramped("import", str(archive), "--yes").code == 0
    assert cramped.lock.models == box.lock.models
    cramped.sound()
