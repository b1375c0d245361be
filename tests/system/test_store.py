"""The model store on disk: where things lie, what counts as what, and writes that are whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.core.model import ModelRef
from llmctl.errors import DiskFull, LlmctlError
from llmctl.system.store import LARGEST_MANIFEST_BYTES, Store
from tests.parts.ollama import OllamaServer
from tests.registry_server import digest_of

REF = ModelRef.parse("Qwen3:8B")
CONTENT = b"blob"
DIGEST = digest_of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def put(store: Store, content: bytes) -> str:
    temporary = store.make_scratch() / "new"
    temporary.write_bytes(content)
    store.place(temporary, digest_of(content))
    return digest_of(content)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "0" * 63, "sha256:../../x", f"{DIGEST}\n", "md5:0"])
def test_only_a_digest_has_a_place(store: Store, digest: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        store.blob(digest)


def test_an_empty_place_is_an_empty_store(store: Store) -> None:
    assert list(store.names()) == []
    assert list(store.files()) == []
    assert store.manifest(REF) is None
    assert not store.path.exists()


def test_a_blob_appears_whole_with_the_mode_that_a_server_reads(store: Store) -> None:
    os.umask(0o077)
    try:
        path = store.blob(put(store, CONTENT))
    finally:
        os.umask(0o022)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(store.scratch.iterdir()) == []
    assert store.scratch.stat().st_mode & 0o777 == 0o700


def test_a_placed_blob_replaces_what_was_there_and_readers_keep_the_old(store: Store, tmp_path: Path) -> None:
    target = store.blob(put(store, CONTENT))
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        put(store, CONTENT)
        assert reader.read() == b"old"
    assert target.read_bytes() == CONTENT

    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"of somebody")
    target.unlink()
    target.symlink_to(elsewhere)
    put(store, CONTENT)
    assert not target.is_symlink()
    assert elsewhere.read_bytes() == b"of somebody"


def test_a_blob_whose_place_is_a_folder_is_an_error(store: Store) -> None:
    store.blob(DIGEST).mkdir(parents=True)
    with pytest.raises(LlmctlError):
        put(store, CONTENT)


def test_manifests_by_name(store: Store) -> None:
    store.write_manifest(REF, b"one")
    path = store.path / "manifests/registry.ollama.ai/library/Qwen3/8B"
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o644
    # Ollama takes names without regard to case, and keeps the first.
    assert store.manifest(ModelRef.parse("qwen3:8b")) == b"one"
    store.write_manifest(ModelRef.parse("QWEN3:8b"), b"two")
    assert [str(ref) for ref in store.names()] == ["Qwen3:8B"]
    assert store.manifest(REF) == b"two"

    store.remove_manifest(ModelRef.parse("qwen3:8b"))
    assert store.manifest(REF) is None
    assert not (store.path / "manifests/registry.ollama.ai").exists()
    store.remove_manifest(REF)


def test_a_neighbour_keeps_its_folder(store: Store) -> None:
    other = ModelRef.parse("qwen3:4b")
    store.write_manifest(REF, b"one")
    store.write_manifest(other, b"two")
    store.remove_manifest(REF)
    assert store.manifest(other) == b"two"


def test_what_ollama_would_not_list_is_no_name(store: Store) -> None:
    store.write_manifest(REF, b"one")
    root = store.path / "manifests"
    (root / "registry.ollama.ai/library/Qwen3/.hidden").write_bytes(b"")
    (root / "registry.ollama.ai/library/Qwen3/a tag").write_bytes(b"")
    (root / "registry.ollama.ai/library/Qwen3/folder").mkdir()
    (root / "registry.ollama.ai/stray").write_bytes(b"")
    (root / "stray").write_bytes(b"")
    assert list(store.names()) == [REF]


@pytest.mark.parametrize("how", ["folder", "pipe", "huge"])
def test_a_manifest_that_is_no_file_of_a_sane_size_is_an_error(store: Store, how: str) -> None:
    path = store.manifest_path(REF)
    path.parent.mkdir(parents=True)
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b" " * (LARGEST_MANIFEST_BYTES + 1))
    with pytest.raises(LlmctlError, match="cannot read"):
        store.manifest(REF)


def test_what_lies_in_the_folder_of_blobs(store: Store) -> None:
    put(store, CONTENT)
    name = store.blob(DIGEST).name
    (store.blobs_folder / f"{name}-partial").touch()
    os.truncate(store.blobs_folder / f"{name}-partial", 1 << 30)
    (store.blobs_folder / f"{name}-partial-3").write_text("{}")
    (store.blobs_folder / "README").write_text("x")
    (store.blobs_folder / digest_of(b"gone").replace(":", "-")).symlink_to("nowhere")
    found = {file.path.name: file for file in store.files()}
    assert set(found) == {name, f"{name}-partial", f"{name}-partial-3", "README"}
    assert (found[name].digest, found[name].partial, found[name].size_bytes) == (DIGEST, False, len(CONTENT))
    assert (found[f"{name}-partial"].digest, found[f"{name}-partial"].partial) == (DIGEST, True)
    assert (found[f"{name}-partial"].size_bytes, found[f"{name}-partial"].disk_bytes) == (1 << 30, 0)
    assert found["README"].digest is None


def test_one_at_a_time(store: Store) -> None:
    store.make_scratch()
    waited, entered, order = threading.Event(), threading.Event(), []

    def second() -> None:
        with Store(store.path).changing(waited.set):
            order.append("second")
        entered.set()

    with store.changing(lambda: pytest.fail("nobody else is here")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(60)
        order.append("first")
    assert entered.wait(60)
    thread.join()
    assert order == ["first", "second"]


def test_a_killed_holder_holds_nothing(store: Store) -> None:
    program = (
        "import sys; from pathlib import Path; from llmctl.system.store import Store\n"
        "with Store(Path(sys.argv[1])).changing(lambda: None):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(store.path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.communicate()
    with store.changing(lambda: pytest.fail("the kernel drops it with the process")):
        pass


@pytest.mark.real("tmpfs")
def test_a_full_disk_leaves_no_half_manifest(small_disk: Callable[[int], Path]) -> None:
    store = Store(small_disk(1 << 20) / "models")
    store.write_manifest(REF, b"old")
    with pytest.raises(DiskFull):
        store.write_manifest(REF, b"x" * (2 << 20))
    assert store.manifest(REF) == b"old"
    assert list(store.scratch.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into other users' stores")
def test_root_gives_what_it_makes_to_the_owner_of_the_store() -> None:
    # Not below tmp_path, into which only the user of the tests may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store = Store(folder / "models")
        store.path.mkdir()
        os.chown(store.path, 12345, 23456)
        put(store, CONTENT)
        store.write_manifest(REF, b"one")
        made = [store.blobs_folder, store.blob(DIGEST), *(store.path / "manifests").rglob("*")]
        assert len(made) == 6
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 23456)}


@pytest.mark.real("ollama")
def test_a_running_server_sees_what_is_placed_and_what_is_removed(
    ollama_server: Callable[[], OllamaServer],
) -> None:
    from tests.library.pinned import Pinned
    from tests.memory import gguf_bytes

    server = ollama_server()
    store = Store(server.models)
    folder = server.home / "config"
    folder.mkdir()
    pin = Pinned(folder, server.url, store).add("Placed:by-Hand", gguf_bytes.small())
    listed = {model["name"]: model["digest"] for model in server.get("/api/tags")["models"]}
    assert listed == {pin.served: pin.manifest_digest[7:], pin.alias: pin.manifest_digest[7:]}
    store.remove_manifest(ModelRef.parse(pin.served))
    assert [model["name"] for model in server.get("/api/tags")["models"]] == [pin.alias]


def planted(folder: Path) -> tuple[Path, Store]:
    """A folder of root's, and a store whose owner has a link to it where llmctl's unfinished files lie."""
    folder.chmod(0o755)
    victim, store = folder / "victim", Store(folder / "models")
    victim.mkdir(0o700)
    (victim / "file").write_text("root's")
    os.utime(victim / "file", (0, 0))
    store.blobs_folder.mkdir(parents=True)
    store.scratch.symlink_to(victim)
    for path in (store.path, store.blobs_folder, store.scratch):
        os.chown(path, 12345, 23456, follow_symlinks=False)
    return victim, store


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into other users' stores")
def test_a_link_in_place_of_the_scratch_folder_leads_nowhere() -> None:
    with tempfile.TemporaryDirectory() as name:
        victim, store = planted(Path(name))
        with pytest.raises(LlmctlError, match="a link"):
            store.make_scratch()
        assert victim.stat().st_uid == 0
        assert list(store.scratch_files()) == []
        with pytest.raises(LlmctlError, match="a link"):
            store.write_manifest(REF, b"one")
        assert [path.name for path in victim.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into other users' stores")
def test_a_scratch_folder_of_a_third_user_is_not_used() -> None:
    with tempfile.TemporaryDirectory() as name:
        _, store = planted(Path(name))
        store.scratch.unlink()
        store.scratch.mkdir()
        (store.scratch / "file").touch()
        os.chown(store.scratch, 777, 777)
        with pytest.raises(LlmctlError, match="another user"):
            store.make_scratch()
        assert list(store.scratch_files()) == []
        assert store.scratch.stat().st_uid == 777
        # What root left there, or the owner, is as good as ever.
        for user in (0, 12345):
            os.chown(store.scratch, user, -1)
            assert store.make_scratch() == store.scratch
            assert len(list(store.scratch_files())) == 1


def test_a_temporary_that_became_a_link_is_not_placed(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(CONTENT)
    victim.chmod(0o600)
    temporary = store.make_scratch() / "new"
    temporary.symlink_to(victim)
    with pytest.raises(LlmctlError):
        store.place(temporary, DIGEST)
    assert victim.stat().st_mode & 0o777 == 0o600
    assert not os.path.lexists(store.blob(DIGEST))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into other users' stores")
def test_a_temporary_that_has_another_name_elsewhere_is_not_given_away() -> None:
    with tempfile.TemporaryDirectory() as name:
        victim, store = planted(Path(name))
        store.scratch.unlink()
        temporary = store.make_scratch() / "new"
        os.link(victim / "file", temporary)
        with pytest.raises(LlmctlError):
            store.place(temporary, DIGEST)
        assert (victim / "file").stat().st_uid == 0
