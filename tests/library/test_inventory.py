"""What is there, what is pinned, and how it goes away: on a real server."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.core.model import ModelRef, alias_for
from llmctl.core.pin import Lock, LockError
from llmctl.errors import ConsentNeeded, LlmctlError, NotFound
from llmctl.library.inventory import LibraryEntry, from_server, from_store, listed
from llmctl.library.usage import KnownLock
from llmctl.system.store import Store
from llmctl.workflows.inventory import findings
from tests.library.conftest import STARTER_DIGEST, Desk
from tests.library.test_pins import PIN
from tests.registry_server import Registry

real = pytest.mark.real("ollama", "model")


def look(desk: Desk) -> tuple[LibraryEntry, ...]:
    """The same question to the disk and to the server, which must give the same answer."""
    loaded = [model.digest for model in desk.client.ps()]
    disk = listed(from_store(Store(desk.server.models)), [desk.lock], loaded)
    server = listed(from_server(desk.client), [desk.lock], loaded)
    blind = [replace(each, weights_digest=None) for each in disk]
    assert blind == [replace(each, weights_digest=None) for each in server]
    return disk


def states(desk: Desk) -> dict[str, tuple[str, bool | None]]:
    return {entry.name: (entry.pin_state, entry.loaded) for entry in look(desk)}


def pin_states(desk: Desk) -> dict[str, str]:
    both = [from_store(Store(desk.server.models)), from_server(desk.client)]
    disk, server = ({entry.name: entry.pin_state for entry in listed(each, [desk.lock])} for each in both)
    assert disk == server
    return dict(disk)


@real
def test_list_tells_pinned_drifted_missing_and_unpinned_apart(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    name = published.name("m:q4_K_M")
    alias = desk.ensure(name).alias
    assert states(desk) == {name: ("pinned", False)}
    entry = look(desk)[0]
    assert (entry.plain, entry.weights_digest) == ("same", STARTER_DIGEST)
    assert (entry.alias, entry.source, entry.quantization) == (alias, "registry", "Q4_K_M")
    assert entry.size_bytes == desk.lock.models[0].size_bytes
    desk.client.load(alias)
    assert states(desk) == {name: ("pinned", True)}
    desk.client.copy(alias, "twin")
    # Two names of the same weights share one runner, and /api/ps shows one of them.
    assert states(desk)["twin:latest"] == ("unpinned", True)
    desk.client.delete("twin")
    desk.make("other", starter_gguf)
    assert desk.tags()["other:latest"] != desk.tags()[alias]
    by_weights = listed(from_store(Store(desk.server.models)), [desk.lock], [m.digest for m in desk.client.ps()])
    assert {entry.name: (entry.pin_state, entry.loaded) for entry in by_weights}["other:latest"] == ("unpinned", True)
    desk.client.copy("other:latest", alias)
    assert pin_states(desk)[name] == "drifted"
    desk.client.delete(alias)
    assert pin_states(desk)[name] == "drifted"
    desk.client.delete(name)
    # A model that is deleted stays in memory until it is unloaded.
    assert pin_states(desk)[name] == "missing"
    assert listed((), [desk.lock], [desk.lock.models[0].manifest_digest[7:]])[0].loaded is True


@real
def test_rm_asks_for_what_is_pinned_then_unloads_and_removes_all_of_it(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    desk.ensure(name)
    alias = desk.ensure(name, context=512).alias
    desk.client.load(alias)

    def nobody(question: str) -> None:
        raise ConsentNeeded(question)

    with pytest.raises(ConsentNeeded, match="pinned"):
        desk.library.remove(name, desk.lock, nobody)
    assert len(desk.tags()) == 3
    removed, lock = desk.library.remove(name, desk.lock, lambda _: None)
    assert len(removed.deleted) == 3
    assert removed.unpinned
    assert lock == Lock()
    assert desk.tags() == {}
    assert desk.client.ps() == []
    assert not [blob for blob in (desk.server.models / "blobs").iterdir() if blob.stat().st_size > 1 << 20]


@real
def test_rm_asks_for_what_another_lock_pins_and_says_which(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    desk.ensure(name)
    asked: list[str] = []
    elsewhere = KnownLock("/somewhere/team.lock", desk.lock.models)

    def nobody(question: str) -> None:
        asked.append(question)
        raise ConsentNeeded(question)

    for lock, other in ((Lock(), elsewhere), (desk.lock, elsewhere)):
        with pytest.raises(ConsentNeeded, match=re.escape("/somewhere/team.lock")):
            desk.library.remove(name, lock, nobody, [other])
    # One that cannot be read now still pins what it pinned when it was last seen.
    lost = KnownLock("/gone/team.lock", (), "the folder is not there", (desk.lock.models[0].alias,))
    with pytest.raises(ConsentNeeded, match=re.escape("/gone/team.lock")):
        desk.library.remove(name, Lock(), nobody, [lost])
    assert len(desk.tags()) == 2
    removed, _ = desk.library.remove(name, Lock(), lambda _: None, [elsewhere])
    assert len(removed.deleted) == 2


@real
def test_rm_of_an_unpinned_model_asks_nobody_and_of_none_says_so(desk: Desk, starter_gguf: Path) -> None:
    desk.make("other", starter_gguf)
    desk.make("another", starter_gguf)
    removed, _ = desk.library.remove("other", Lock(), lambda question: pytest.fail(question))
    assert removed.deleted == ("other:latest",)
    assert set(desk.tags()) == {"another:latest"}
    with pytest.raises(NotFound) as caught:
        desk.library.remove("other", Lock(), lambda _: None)
    assert caught.value.exit_code == 4


@real
def test_rm_of_a_missing_model_still_removes_its_pin(desk: Desk) -> None:
    removed, lock = desk.library.remove(PIN.name, Lock((PIN,)), lambda _: None)
    assert removed.deleted == ()
    assert lock == Lock()


def test_the_lock_file_is_whole_readable_and_changes_one_line_at_a_time(tmp_path: Path) -> None:
    from llmctl.library import lock_file

    path = tmp_path / "deep" / "profile.lock"
    lock = lock_file.change(path, lambda lock: lock.with_pin(PIN).with_pin(replace(PIN, name="a")))
    assert lock_file.read(path) == lock
    before = path.read_text().splitlines()
    lock_file.change(path, lambda lock: lock.with_pin(replace(PIN, engine="0.35.0")))
    after = path.read_text().splitlines()
    assert len([1 for old, new in zip(before, after, strict=True) if old != new]) == 1
    assert lock_file.read(tmp_path / "none.lock") == Lock()


def test_an_unchanged_lock_is_not_written_again(tmp_path: Path) -> None:
    from llmctl.library import lock_file

    path = tmp_path / "profile.lock"
    lock_file.write(path, Lock((PIN,)))
    inode = path.stat().st_ino
    lock_file.write(path, Lock((PIN,)))
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    "content", [b"schema: 1\nmodels: 3\n", b"\xff\xfe", b"schema: 9\n", b"- a\n", b"a: &x 1\n", b""]
)
def test_a_damaged_lock_file_is_named_and_not_overwritten(tmp_path: Path, content: bytes) -> None:
    from llmctl.library import lock_file

    path = tmp_path / "profile.lock"
    path.write_bytes(content)
    with pytest.raises(LockError) as caught:
        lock_file.change(path, lambda lock: lock.with_pin(PIN))
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_lock_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    from llmctl.library import lock_file

    with pytest.raises(LlmctlError, match="folder"):
        lock_file.read(tmp_path)


def test_a_stand_in_is_said_to_be_one() -> None:
    name, pin = "qwen2.5:0.5b", "0" * 12
    entry = LibraryEntry(
        name=name,
        alias=alias_for(ModelRef.parse("gemma3-270m-starter:q4_K_M"), pin),
        source="starter",
        digest=pin,
        size_bytes=1,
        quantization="Q4_K_M",
        pin_state="pinned",
        loaded=False,
    )
    (said,) = findings(entry)
    assert "gemma3-270m-starter:q4_K_M, the small starter, stands in for qwen2.5:0.5b" in said
    assert said.endswith("llmctl pull qwen2.5:0.5b --update")
    own = replace(entry, name="gemma3-270m-starter:q4_K_M")
    assert findings(own) == []
