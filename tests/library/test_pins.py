"""The lock as data: it keeps everything, in one order, and refuses what it did not write."""

from __future__ import annotations

import copy
import difflib
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from llmctl.core.pin import EnginePin, Layer, Lock, LockError, Pin
from llmctl.library import lock_file
from llmctl.system.shipped import data_folder
from llmctl.system.store import Store

SCHEMA = Draft7Validator(json.loads((data_folder("profiles") / "lock.schema.json").read_text()))
WEIGHTS = Layer("application/vnd.ollama.image.model", "sha256:" + "a" * 64, 1000)
CONFIG = Layer("application/vnd.docker.container.image.v1+json", "sha256:" + "b" * 64, 10)
PIN = Pin(
    name="qwen3:8b-q4_K_M",
    served="qwen3:8b-q4_K_M",
    source="registry",
    registry="registry.ollama.ai",
    manifest_digest="sha256:" + "c" * 64,
    config=CONFIG,
    layers=(WEIGHTS,),
    weights_digest=WEIGHTS.digest,
    quantization="Q4_K_M",
    file_type=15,
    parameters=8_190_735_360,
    alias="llmctl/qwen3_-8b-q4__K__M:cccccccccccc",
    engine="0.34.0",
    pinned_at="2026-11-23T01:00:00+00:00",
    from_="https://registry.ollama.ai/v2/library/qwen3/manifests/8b-q4_K_M",
)


def test_a_lock_comes_back_as_it_was_written() -> None:
    lock = Lock((PIN, replace(PIN, name="z", config=None, registry=None, file_type=None, parameters=None)))
    assert Lock.from_dict(lock.to_dict()) == lock
    with_engine = replace(lock, engine=EnginePin("0.34.0", "d" * 64))
    assert Lock.from_dict(with_engine.to_dict()) == with_engine


def test_the_order_does_not_depend_on_the_order_of_pinning() -> None:
    other = replace(PIN, name="gemma3:4b")
    assert Lock().with_pin(PIN).with_pin(other) == Lock().with_pin(other).with_pin(PIN)
    assert [pin["name"] for pin in Lock((PIN, other)).to_dict()["models"]] == ["gemma3:4b", PIN.name]


def test_pinning_again_replaces_and_unpinning_removes() -> None:
    moved = replace(PIN, engine="0.35.0")
    assert Lock().with_pin(PIN).with_pin(moved).pin(PIN.name) == moved
    assert Lock().with_pin(PIN).without(PIN.name) == Lock()


SPELLINGS = (
    "qwen3",
    "qwen3:latest",
    "library/qwen3",
    "Library/QWEN3:Latest",
    "registry.ollama.ai/library/qwen3:latest",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_name_is_one_name_in_every_spelling(spelling: str) -> None:
    pin, other = replace(PIN, name="qwen3:latest", served="qwen3:latest"), replace(PIN, name="z", served="z:latest")
    lock = Lock((pin, other))
    assert lock.pin(spelling) == lock.meant(spelling) == pin
    assert lock.without(spelling) == Lock((other,))
    again = replace(pin, name=spelling)
    assert lock.with_pin(again) == Lock((again, other))


def test_a_pin_is_meant_by_its_name_before_another_that_is_served_so() -> None:
    stand_in = replace(PIN, name="a", served="starter:q4_K_M", alias="llmctl/a:0123456789ab")
    own = replace(PIN, name="starter:q4_K_M", served="starter:q4_K_M")
    assert Lock((stand_in, own)).meant("starter:q4_K_M") == own
    assert Lock((stand_in,)).meant("starter:Q4_K_M") == stand_in
    assert Lock((stand_in, own)).meant("LLMCTL/a:0123456789ab") == stand_in
    assert Lock((stand_in,)).pin("starter:q4_K_M") is None
    assert Lock((stand_in,)).meant("not a name!") is None


def test_two_spellings_of_one_name_in_a_lock_are_refused() -> None:
    document = Lock((replace(PIN, name="qwen3"), replace(PIN, name="z"))).to_dict()
    document["models"][1]["name"] = "qwen3:latest"
    with pytest.raises(LockError, match="twice: qwen3 and qwen3:latest"):
        Lock.from_dict(document)


def test_the_size_is_that_of_all_blobs() -> None:
    assert PIN.size_bytes == 1010


NONSENSE = [
    (("schema",), 2, "schema is 2"),
    (("schema",), True, "schema"),
    (("models",), "x", "models: found 'x'"),
    (("models", 0), None, "a mapping with name"),
    (("models", 0, "manifest_digest"), "sha256:1", "manifest_digest: found 'sha256:1', allowed sha256: and 64 hex"),
    (("models", 0, "weights_digest"), None, "weights_digest: found nothing"),
    (("models", 0, "source"), "web", "registry, starter or file"),
    (("models", 0, "layers"), None, "layers"),
    (("models", 0, "layers", 0, "size_bytes"), -1, "size_bytes"),
    (("models", 0, "layers", 0, "size_bytes"), 1.5, "size_bytes"),
    (("models", 0, "layers", 0, "digest"), "../../etc", "digest"),
    (("models", 0, "alias"), 7, "alias"),
    (("models", 0, "alias"), "qwen3:8b", "alias: found 'qwen3:8b', allowed llmctl/NAME:12 hex"),
    (("models", 0, "file_type"), "15", "file_type"),
    (("models", 0, "name"), "", "name"),
    (("models", 0, "signed_by"), "me", "signed_by: found an unknown key"),
    (("signatures",), [], "signatures: found an unknown key"),
    (("engine",), {"version": "0.34.0", "release_sha256": "d" * 63}, "release_sha256"),
]


def nonsense(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    document = copy.deepcopy(Lock((PIN,)).to_dict())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(("path", "value", "said"), NONSENSE)
def test_a_lock_that_was_edited_into_nonsense_is_refused(path: tuple[Any, ...], value: object, said: str) -> None:
    with pytest.raises(LockError, match=re.escape(said)):
        Lock.from_dict(nonsense(path, value))


@pytest.mark.parametrize("key", PIN.to_dict())
def test_a_pin_without_one_of_its_keys_is_refused(key: str) -> None:
    document = Lock((PIN,)).to_dict()
    del document["models"][0][key]
    with pytest.raises(LockError, match=key):
        Lock.from_dict(document)
    assert not list(SCHEMA.iter_errors(Lock((PIN,)).to_dict()))
    assert list(SCHEMA.iter_errors(document))


@pytest.mark.parametrize(("path", "value", "said"), NONSENSE)
def test_the_shipped_schema_refuses_what_llmctl_refuses(path: tuple[Any, ...], value: object, said: str) -> None:
    assert list(SCHEMA.iter_errors(nonsense(path, value))), said


def test_the_shipped_schema_takes_what_llmctl_writes() -> None:
    made_here = replace(PIN, name="z", config=None, registry=None, file_type=None, parameters=None, layers=())
    for lock in (Lock(), Lock((PIN, made_here)), Lock((PIN,), EnginePin("0.34.0", None))):
        assert list(SCHEMA.iter_errors(lock.to_dict())) == []


def test_a_newer_lock_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "profile.lock"
    for text in ("schema: 2\nmodels: []\n", "schema: 1\nmodels: []\nsignatures: []\n"):
        path.write_text(text)
        with pytest.raises(LockError) as caught:
            lock_file.change(path, lambda lock: lock)
        assert "upgrade" in str(caught.value.hint)
        assert path.read_text() == text


def values(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every single value."""
    if isinstance(document, (dict, list)):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from values(value, (*path, key))
    else:
        yield path


def test_one_change_is_one_line_of_a_diff(tmp_path: Path) -> None:
    path = tmp_path / "profile.lock"
    for place in values(PIN.to_dict()):
        lock_file.write(path, Lock((PIN, replace(PIN, name="a"))))
        before = path.read_text().splitlines()
        document = Lock((PIN, replace(PIN, name="a"))).to_dict()
        entry: Any = document["models"][1]
        for step in place[:-1]:
            entry = entry[step]
        old = entry[place[-1]]
        changed = {"source": "file", "alias": "llmctl/x:0123456789ab"}.get(str(place[-1]))
        fresh = "sha256:" + "9" * 64 if str(old).startswith("sha256:") else f"{old}!"
        entry[place[-1]] = changed or (old + 1 if isinstance(old, int) else fresh)
        lock_file.write(path, Lock.from_dict(document))
        lines = list(difflib.ndiff(before, path.read_text().splitlines()))
        assert len([line for line in lines if line.startswith("- ")]) == 1, place
        assert len([line for line in lines if line.startswith("+ ")]) == 1, place


def test_people_may_write_comments_above_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "profile.lock"
    lock_file.write(path, Lock((PIN,)))
    assert path.read_text().startswith("# Written by llmctl")
    path.write_text("# yaml-language-server: $schema=lock.schema.json\n# mine\n" + path.read_text())
    assert lock_file.read(path) == Lock((PIN,))


def test_a_model_twice_and_no_mapping_are_refused() -> None:
    document = Lock((PIN,)).to_dict()
    document["models"] *= 2
    with pytest.raises(LockError, match="twice"):
        Lock.from_dict(document)
    for value in ([], None, "lock"):
        with pytest.raises(LockError, match="mapping"):
            Lock.from_dict(value)


def test_two_change_one_lock_one_after_the_other_and_leave_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "team/profile.lock"
    inside, go_on = threading.Event(), threading.Event()

    def slow(lock: Lock) -> Lock:
        inside.set()
        assert go_on.wait(60)
        return lock.with_pin(PIN)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lock_file.change, path, slow)
        assert inside.wait(60)
        second = pool.submit(lock_file.change, path, lambda lock: lock.with_pin(replace(PIN, name="other:t")))
        go_on.set()
        first.result()
        second.result()
    assert [pin.name for pin in lock_file.read(path).models] == ["other:t", PIN.name]
    assert [each.name for each in path.parent.iterdir()] == ["profile.lock"]


def test_a_lock_in_a_folder_that_is_held_already_is_changed(tmp_path: Path) -> None:
    """A profile may lie in the model store, which is held while a pull ends."""
    with Store(tmp_path).changing(lambda: None):
        lock_file.change(tmp_path / "profile.lock", lambda lock: lock.with_pin(PIN))
        # And is still held: the inner one did not let go of it.
        descriptor = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert lock_file.read(tmp_path / "profile.lock").models == (PIN,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_two_users_of_one_group_change_one_lock() -> None:
    # Not below tmp_path, into which only the user of the tests may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "team"
        folder.mkdir()
        Path(name).chmod(0o755)
        os.chown(folder, 1001, 2000)
        folder.chmod(0o2770)
        for user in (1001, 1002):
            program = (
                "import os, sys; from pathlib import Path; from llmctl.library import lock_file\n"
                # Everything is imported while the code can be read.
                "lock_file.change(Path(sys.argv[2]), lambda lock: lock)\n"
                f"os.setgroups([]); os.setgid(2000); os.setuid({user}); os.umask(0o002)\n"
                "lock_file.change(Path(sys.argv[1]), lambda lock: lock)\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, str(folder / "profile.lock"), str(Path(name) / "lock")],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
        assert [each.name for each in folder.iterdir()] == ["profile.lock"]
