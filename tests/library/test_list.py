"""list: the disk says what is there, with a server or without; two stores, a moved name, sparse files, damage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.model import ModelRef
from llmctl.core.pin import Lock
from llmctl.errors import NotFound
from llmctl.library import lock_file, usage
from llmctl.output.inventory import list_lines
from llmctl.server import Server
from llmctl.system.paths import from_environment
from llmctl.system.store import Store
from llmctl.workflows import store as stores
from tests.conftest import StartOllama
from tests.library.pinned import Pinned, tree
from tests.library.test_verify import as_another_user
from tests.registry_server import Registry, serving


@pytest.fixture
def here(tmp_path: Path, free_port: Callable[[], int]) -> Pinned:
    """A store of its own, which OLLAMA_MODELS names, and no server."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    store = Store(tmp_path / "models")
    return Pinned(folder, f"127.0.0.1:{free_port()}", store, environ={"OLLAMA_MODELS": str(store.path)})


def listed(here: Pinned, *words: str) -> dict[str, Any]:
    done = here("list", "--json", *words, given=False)
    assert done.code == 0, done.err
    return done.json


def models(here: Pinned, *words: str) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in listed(here, *words)["models"]}


def test_without_a_server_the_disk_tells_all(here: Pinned) -> None:
    pin = here.add("m:q4_K_M", b"weights" * 1000)
    content = here.store.manifest(ModelRef.parse(pin.served))
    assert content is not None
    here.store.write_manifest(ModelRef.parse("twin"), content)
    before = tree(here.store.path)
    found = listed(here)
    assert found["base_url"] is None
    assert found["store"] == str(here.store.path)
    assert "no server runs" in found["why"]
    mine, twin = found["models"]
    assert (mine["pin_state"], mine["plain"], mine["loaded"]) == ("pinned", "same", False)
    assert (twin["name"], twin["pin_state"], twin["quantization"]) == ("twin:latest", "unpinned", "Q4_K_M")
    assert twin["size_bytes"] == mine["size_bytes"] == pin.size_bytes
    assert mine["disk_bytes"] == sum(here.path(layer.digest).stat().st_blocks * 512 for layer in pin.blobs)
    assert found["findings"] == []
    assert tree(here.store.path) == before


def test_a_model_folder_that_is_not_there_yet_is_an_empty_one(here: Pinned) -> None:
    assert listed(here)["models"] == []
    assert "llmctl pull" in here("list", given=False).out
    assert not here.store.path.exists()
    assert here("list").code == 4


def test_shared_blobs_and_sparse_files_are_counted_as_the_disk_does(here: Pinned) -> None:
    here.add("one:t", b"a" * 300_000)
    here.add("two:t", b"b" * 300_000)
    here.add("three:t", b"b" * 300_000, template="another")
    loose = here.path(here.blob("x", b"nobody's" * 10_000).digest)
    half = here.store.blobs_folder / ("sha256-" + "e" * 64 + "-partial")
    with half.open("wb") as file:
        file.write(b"x" * 8192)
        file.truncate(1 << 34)
    disk = listed(here)["disk"]
    blocks = {path: path.stat().st_blocks * 512 for path in here.store.blobs_folder.iterdir()}
    assert disk["blobs"] == len(blocks) - 1
    assert disk["used_bytes"] == sum(blocks.values()) - blocks[half]
    assert disk["unfinished_bytes"] == blocks[half] < 1 << 20
    assert disk["unfinished_length_bytes"] == 1 << 34
    assert disk["unreferenced_bytes"] == blocks[loose]
    assert disk["free_bytes"] > 0
    text = " ".join(here("list", given=False).out.split())
    assert "of unfinished downloads (of 16.0 GiB when finished)" in text
    assert "llmctl prune --dry-run" in text


def test_a_damaged_manifest_is_listed_as_such(here: Pinned) -> None:
    pin = here.add("good:t", b"good")
    here.add("bad:t", b"bad")
    here.add("gone:t", b"gone")
    here.lock = Lock((pin, here.lock.models[0]))
    lock_file.write(here.lock_path, here.lock)
    path = here.store.manifest_path(ModelRef.parse("gone:t"))
    for content in (b"", b"{", b"[" * 100_000, b'{"layers": 3}', b'{"layers": [], "config": {"digest": "../../x"}}'):
        path.write_bytes(content)
        found = models(here)
        assert found["gone:t"]["damaged"]
        assert found["gone:t"]["pin_state"] == "unpinned"
        assert found["good:t"]["pin_state"] == "pinned"
    finding = next(each for each in listed(here)["findings"] if each.startswith("gone:t"))
    assert str(path) in finding
    assert finding.endswith("llmctl pull gone:t")
    alias = here.store.manifest_path(ModelRef.parse(here.lock.pin("bad:t").alias))  # type: ignore[union-attr]
    alias.write_bytes(b"{")
    result = listed(here)
    bad = next(model for model in result["models"] if model["name"] == "bad:t")
    assert (bad["pin_state"], bool(bad["damaged"])) == ("drifted", True)
    assert any("llmctl repair bad:t" in finding for finding in result["findings"])
    assert result["disk"]["unreferenced_bytes"] is None


def test_a_moved_plain_name_is_said_with_both_digests(here: Pinned) -> None:
    pin = here.add("m:q4_K_M", b"weights" * 1000)
    other = here.add("other:t", b"other" * 1000)
    moved = here.store.manifest(ModelRef.parse(other.served))
    assert moved is not None
    here.store.write_manifest(ModelRef.parse(pin.served), moved)
    mine = models(here)["m:q4_K_M"]
    assert (mine["pin_state"], mine["plain"]) == ("pinned", "moved")
    assert mine["plain_digest"] == other.manifest_digest[7:]
    text = " ".join(here("list", given=False).out.split())
    assert f"gets {other.manifest_digest[7:19]}, which is not what is pinned" in text
    assert "llmctl pull m:q4_K_M" in text
    here.store.remove_manifest(ModelRef.parse(pin.served))
    assert models(here)["m:q4_K_M"]["plain"] == "absent"


def test_weights_of_a_made_model_that_changed_are_drift(here: Pinned) -> None:
    pin = here.add("mine:t", b"mine")
    other = here.add("other:t", b"other")
    here.store.remove_manifest(ModelRef.parse(pin.served))
    here.pin(replace(pin, source="file", registry=None, manifest_digest="sha256:" + "9" * 64))
    # The manifest is another machine's; the weights are those of the pin.
    assert models(here)["mine:t"]["pin_state"] == "pinned"
    content = here.store.manifest(ModelRef.parse(other.served))
    assert content is not None
    here.store.write_manifest(ModelRef.parse(pin.alias), content)
    assert models(here)["mine:t"]["pin_state"] == "drifted"


def test_the_other_store_of_the_machine_is_named(here: Pinned, home: Path) -> None:
    other = Pinned(here.folder, here.url, Store(home / ".ollama" / "models"))
    other.add("theirs:t", b"theirs")
    lock_file.write(here.lock_path, Lock())
    here.store.path.mkdir()
    (found,) = listed(here)["others"]
    assert found == {"path": str(other.store.path), "models": 2}
    text = " ".join(here("list", given=False).out.split())
    assert f"another store, {other.store.path}, has 2 models: llmctl list --store {other.store.path}" in text
    assert "theirs:t" in {
        model["name"] for model in here("list", "--json", "--store", str(other.store.path), given=False).json["models"]
    }


def test_what_is_not_here_is_looked_for_in_the_other_store(here: Pinned, home: Path) -> None:
    other = Pinned(here.folder, here.url, Store(home / ".ollama" / "models"))
    other.add("theirs:t", b"theirs")
    server = Server(from_environment(os.environ), os.environ)
    error = NotFound("no model theirs:t here", "llmctl list", code="model_not_found")
    told = stores.elsewhere(error, server, here.store.path, "theirs:t", ())
    assert str(other.store.path) in told.message
    assert told.hint == f"llmctl list --store {other.store.path}"
    assert (told.code, told.exit_code) == (error.code, 4)
    assert stores.elsewhere(error, server, here.store.path, "nobody:t", ()) is error


def test_a_store_that_cannot_be_read_is_an_error_without_a_server(here: Pinned) -> None:
    here.add("m:t", b"m")
    folder = here.store.path / "manifests"
    folder.chmod(0)
    ran = as_another_user(here, "list", "--json")
    folder.chmod(0o755)
    assert ran.returncode == 1
    assert json.loads(ran.stderr.splitlines()[-1])["error"]["code"] == "permission_denied"


@pytest.mark.parametrize("width", [40, 80])
def test_it_is_readable_on_a_narrow_terminal(here: Pinned, width: int) -> None:
    from llmctl.env import Env
    from llmctl.workflows.inventory import look

    here.add("a-model-with-a-rather-long-name:q4_K_M", b"x")
    env = Env({**os.environ, **here.environ, "OLLAMA_HOST": here.url, "LLMCTL_CONFIG_DIR": str(here.folder)})
    profile = env.profile(None)
    lines = list_lines(look(env.server, profile, here.lock, env.client), width)
    # What has no blank cannot be broken.
    assert [line for line in lines if len(line) > width and len(line.split()[-1]) < 24] == []


def newer(registry: Registry, here: Pinned, name: str) -> str:
    """Publish other weights under `name`; their manifest's digest."""
    path = registry.folder / "new-weights"
    path.write_bytes(b"new weights")
    return registry.add(name, path, "sha256:" + "5" * 64)


def test_check_tells_newer_same_and_unknown_apart(here: Pinned, tmp_path: Path, free_port: Callable[[], int]) -> None:
    with serving(tmp_path / "registry") as registry:
        moved = here.add("moved:t", b"moved", host=registry.host)
        same = here.add("same:t", b"same", host=registry.host)
        gone = here.add("gone:t", b"gone", host=registry.host)
        away = here.add("away:t", b"away", host=f"127.0.0.1:{free_port()}")
        content = here.store.manifest(ModelRef.parse(same.served))
        assert content is not None
        registry.manifests["same/t"] = content
        digest = newer(registry, here, "moved:t")
        assert listed(here)["models"][0]["upstream"] is None
        assert registry.asked == []
        found = models(here, "--check")
        assert found[moved.name]["upstream"] == {"state": "newer", "digest": digest[7:], "reason": None}
        assert found[same.name]["upstream"]["state"] == "same"
        for pin in (gone, away):
            assert found[pin.name]["upstream"]["state"] == "unknown"
            assert pin.served.partition("/")[0] in found[pin.name]["upstream"]["reason"]
        assert {entry["pin_state"] for entry in found.values()} == {"pinned"}
        done = here("list", "--check", given=False)
        assert done.code == 0
        assert f"llmctl pull {moved.name} --update" in " ".join(done.out.split())
        assert "pinned, newer" in done.out


def test_a_lock_is_noted_where_it_is_written_and_only_once(tmp_path: Path, home: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "far" / "team.lock"
    usage.note(state, path, Lock())
    (note,) = (state / "locks").iterdir()
    inode = note.stat().st_ino
    usage.note(state, path, Lock())
    assert note.stat().st_ino == inode
    assert [lock.path for lock in usage.known_locks(state)] == [str(path)]
    note.write_text("{")
    (damaged,) = usage.known_locks(state)
    assert damaged.unknown is not None
    assert damaged.aliases is None


@pytest.mark.real("ollama")
def test_a_server_that_hides_its_folder_is_known_by_what_it_lists(
    here: Pinned, home: Path, ollama_server: StartOllama
) -> None:
    """As an ordinary user beside the service's own: its environment cannot be read, its models can."""
    theirs = Pinned(here.folder, here.url, Store(home / ".ollama" / "models"))
    pin = theirs.add("m:t", b"weights")
    theirs.url = ollama_server(models=theirs.store.path).url.removeprefix("http://")
    ran = as_another_user(theirs, "list", "--json", given=False)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["store"] == str(theirs.store.path)
    assert "lists" in document["why"]
    assert document["base_url"] == f"http://{theirs.url}"
    # Where no folder matches, the server alone is asked.
    theirs.store.remove_manifest(ModelRef.parse(pin.alias))
    theirs.store.path.rename(theirs.store.path.with_name("moved"))
    away = json.loads(as_another_user(theirs, "list", "--json", given=False).stdout)
    assert (away["store"], away["disk"]) == (None, None)
    assert "does not tell its model folder" in away["why"]
