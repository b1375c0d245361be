"""prune: what goes, what stays and why; nothing that is named, pinned, loaded, young or not understood."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.model import ModelRef
from llmctl.core.pin import Lock
from llmctl.env import Env
from llmctl.errors import LlmctlError
from llmctl.library import lock_file, prune, usage
from llmctl.system.paths import from_environment
from llmctl.system.store import Store
from tests.conftest import StartOllama
from tests.library.pinned import Pinned, Ran, tree
from tests.library.test_verify import as_another_user

DAY = 86_400.0


@pytest.fixture
def here(tmp_path: Path, free_port: Callable[[], int]) -> Pinned:
    """A store with one pinned model, and no server."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    made = Pinned(folder, f"http://127.0.0.1:{free_port()}", Store(tmp_path / "models"))
    made.add("m:q4_K_M", b"weights" * 1000)
    return made


def age(store: Store, seconds: float = DAY) -> None:
    """As if everything in the store had been written that long ago."""
    then = time.time() - seconds
    for path in store.path.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def pruned(here: Pinned, *words: str) -> dict[str, Any]:
    done = here("prune", "--yes", "--json", *words)
    assert done.code == 0, done.err
    return done.json


def loose(here: Pinned, content: bytes = b"nobody's" * 5000) -> Path:
    """A blob that no manifest names."""
    return here.path(here.blob("x", content).digest)


def old_alias(here: Pinned, content: bytes = b"old weights" * 4000) -> tuple[str, Path]:
    """An alias and its weights as `pull --update` leaves them behind."""
    pin = here.add("gone:q4_K_M", content)
    here.store.remove_manifest(ModelRef.parse(pin.served))
    here.lock = here.lock.without(pin.name)
    lock_file.write(here.lock_path, here.lock)
    return pin.alias, here.path(pin.weights_digest)


def partial(here: Pinned) -> Path:
    path = here.store.blobs_folder / ("sha256-" + "e" * 64 + "-partial")
    with path.open("wb") as file:
        file.write(b"x" * 8192)
        file.truncate(1 << 30)
    path.with_name(f"{path.name}-0").write_text('{"N":0,"Offset":0,"Size":1073741824,"Completed":8192}')
    return path


def test_with_nothing_to_do_it_says_so_and_asks_nobody(here: Pinned) -> None:
    age(here.store)
    before = tree(here.store.path)
    done = here("prune")
    assert (done.code, done.err) == (0, "")
    assert "nothing" in done.out
    assert tree(here.store.path) == before


def test_what_would_go_is_shown_and_stays_until_someone_agrees(here: Pinned) -> None:
    alias, weights = old_alias(here)
    blob, unfinished = loose(here), partial(here)
    age(here.store)
    before = tree(here.store.path)
    shown = here("prune", "--dry-run", "--json").json
    assert shown["dry_run"] is True
    assert shown["aliases"] == [alias]
    assert {str(weights), str(blob), str(unfinished)} < {file["path"] for file in shown["files"]}
    # Real bytes: the unfinished download is a GiB long and has 8 KiB.
    assert shown["freed_bytes"] < 1 << 20
    refused = here("prune")
    assert refused.code == 2
    assert alias in refused.err
    assert "consent" in refused.err
    assert tree(here.store.path) == before


def test_what_nothing_needs_goes_and_what_is_needed_stays(here: Pinned) -> None:
    needed = set(tree(here.store.path))
    alias, weights = old_alias(here)
    loose(here), partial(here)
    (here.store.make_scratch() / "half").write_bytes(b"x" * 4096)
    age(here.store)
    blocks = sum(path.stat().st_blocks * 512 for path in here.store.path.rglob("*") if path.is_file())
    result = pruned(here)
    assert result["aliases"] == [alias]
    assert not weights.exists()
    assert {file["kind"] for file in result["files"]} == {"blob", "unfinished", "scratch"}
    assert set(tree(here.store.path)) == needed
    left = sum(path.stat().st_blocks * 512 for path in here.store.path.rglob("*") if path.is_file())
    # The manifest of the alias is not counted.
    assert blocks - left - 4096 <= result["freed_bytes"] <= blocks - left
    assert pruned(here)["files"] == []
    assert here("verify").code == 0


def test_a_model_s_own_name_is_never_pruned(here: Pinned) -> None:
    pin = here.add("mine:latest", b"mine" * 100)
    here.lock = Lock()
    lock_file.write(here.lock_path, here.lock)
    age(here.store)
    both = {str(ref) for ref in here.store.names() if ref.private}
    assert pin.alias in both
    assert set(pruned(here)["aliases"]) == both
    assert {str(ref) for ref in here.store.names()} == {"m:q4_K_M", "mine:latest"}


def test_a_model_that_someone_published_as_llmctl_is_no_alias(here: Pinned) -> None:
    content = here.store.manifest(ModelRef.parse("m:q4_K_M"))
    assert content is not None
    here.store.write_manifest(ModelRef.parse("llmctl/tool:latest"), content)
    age(here.store)
    assert pruned(here)["aliases"] == []


def test_the_siblings_of_a_living_pin_stay_and_those_of_a_dead_one_go(here: Pinned) -> None:
    alias, _ = old_alias(here)
    content = here.store.manifest(ModelRef.parse("m:q4_K_M"))
    assert content is not None
    living = here.lock.models[0].alias
    for name in (f"{living}-c8192", f"{alias}-c8192"):
        here.store.write_manifest(ModelRef.parse(name), content)
    age(here.store)
    assert set(pruned(here)["aliases"]) == {alias, f"{alias}-c8192"}


def test_the_pins_of_every_noted_lock_count_wherever_it_lies(here: Pinned, tmp_path: Path) -> None:
    alias, weights = old_alias(here)
    far = tmp_path / "project" / "team.lock"
    pin = replace(here.lock.models[0], name="gone", alias=alias, weights_digest="sha256:" + weights.name[7:])
    paths = from_environment(os.environ)
    usage.note(paths.state, far, Lock((pin,)))
    lock_file.write(far, Lock((pin,)))
    age(here.store)
    assert pruned(here)["aliases"] == []
    # Its folder is there and the lock is not: someone removed it, and with it its pins.
    far.unlink()
    assert pruned(here, "--dry-run")["aliases"] == [alias]
    # Its folder is not there: perhaps its disk is not mounted.
    far.parent.rmdir()
    result = pruned(here)
    assert result["aliases"] == []
    assert any("cannot be known" in note and str(far) in note for note in result["notes"])
    assert weights.exists()
    # Only what that lock pinned is kept for it.
    other, _ = old_alias(here, b"other weights" * 100)
    age(here.store)
    assert pruned(here)["aliases"] == [other]


def test_a_lock_that_cannot_be_read_keeps_what_it_may_pin(here: Pinned) -> None:
    alias, _ = old_alias(here)
    (here.folder / "other.lock").write_text("schema: 99\n")
    age(here.store)
    result = pruned(here)
    assert result["aliases"] == []
    assert any("other.lock" in note for note in result["notes"])
    (here.folder / "other.lock").unlink()
    assert pruned(here)["aliases"] == [alias]


def test_while_something_may_be_arriving_nothing_of_a_model_goes(here: Pinned) -> None:
    old_alias(here)
    loose(here)
    unfinished = partial(here)
    age(here.store)
    now = time.time()
    os.utime(unfinished.with_name(f"{unfinished.name}-0"), (now, now))
    before = tree(here.store.path)
    result = pruned(here)
    assert (result["aliases"], result["files"]) == ([], [])
    assert "may be downloading" in result["notes"][0]
    assert tree(here.store.path) == before


def test_a_blob_whose_manifest_is_still_to_come_stays(here: Pinned) -> None:
    age(here.store)
    blob = loose(here)
    assert "may be downloading" in pruned(here)["notes"][0]
    assert blob.exists()
    age(here.store, 3590)
    pruned(here)
    assert blob.exists()
    age(here.store, 3700)
    pruned(here)
    assert not blob.exists()


def test_an_alias_that_was_just_made_may_be_pinned_in_a_moment(here: Pinned) -> None:
    alias, weights = old_alias(here)
    age(here.store)
    now = time.time()
    os.utime(here.store.manifest_path(ModelRef.parse(alias)), (now, now))
    result = pruned(here)
    assert result["aliases"] == []
    assert any("less than an hour" in note for note in result["notes"])
    assert weights.exists()


def test_a_manifest_that_cannot_be_read_keeps_every_blob(here: Pinned) -> None:
    old_alias(here)
    blob = loose(here)
    path = here.store.manifest_path(ModelRef.parse("m:q4_K_M"))
    path.write_bytes(path.read_bytes()[:100])
    age(here.store)
    result = pruned(here)
    assert (result["aliases"], result["files"]) == ([], [])
    assert "m:q4_K_M cannot be read" in result["notes"][0]
    assert blob.exists()


def test_blobs_that_a_pin_names_stay_though_every_manifest_is_gone(here: Pinned) -> None:
    pin = here.lock.models[0]
    for name in (pin.served, pin.alias):
        here.store.remove_manifest(ModelRef.parse(name))
    age(here.store)
    assert pruned(here)["files"] == []
    assert here.path(pin.weights_digest).exists()


def test_what_llmctl_does_not_know_is_left_alone(here: Pinned, tmp_path: Path) -> None:
    age(here.store)
    target = tmp_path / "elsewhere"
    target.write_bytes(b"x")
    link = here.store.blob("sha256:" + "d" * 64)
    link.symlink_to(target)
    strange = here.store.blobs_folder / "notes.txt"
    strange.write_text("mine")
    for path in (target, strange):
        os.utime(path, (1, 1))
    result = pruned(here)
    assert result["files"] == []
    assert any("symlinks" in note for note in result["notes"])
    assert link.is_symlink()
    assert strange.exists()


def test_hard_linked_bytes_are_not_promised(here: Pinned, tmp_path: Path) -> None:
    os.link(loose(here), tmp_path / "copy")
    age(here.store)
    assert pruned(here)["freed_bytes"] == 0


def test_a_blob_that_a_foreign_pull_names_meanwhile_comes_back(here: Pinned, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = here.add("late:q4_K_M", b"late" * 1000)
    ref = ModelRef.parse(pin.served)
    content = here.store.manifest(ref)
    assert content is not None
    for name in (pin.served, pin.alias):
        here.store.remove_manifest(ModelRef.parse(name))
    age(here.store)
    plan = prune.plan(here.store, (), (), time.time())
    plan = replace(plan, aliases=())
    assert str(here.path(pin.weights_digest)) in {file.path for file in plan.files}
    # Between the plan and the removal a foreign pull finds all blobs there, and writes its manifest.
    here.store.write_manifest(ref, content)
    prune.carry_out(here.store, plan, time.time())
    assert here.path(pin.weights_digest).read_bytes() == b"late" * 1000
    assert all(here.path(layer.digest).exists() for layer in pin.blobs)


def test_more_than_what_was_agreed_to_never_goes(here: Pinned) -> None:
    blob = loose(here)
    age(here.store)
    shown = prune.plan(here.store, (), (), time.time())
    later = loose(here, b"later" * 100)
    age(here.store)
    both = shown.both(prune.plan(here.store, (), (), time.time()))
    assert str(blob) in {file.path for file in both.files}
    assert str(later) not in {file.path for file in both.files}


def test_what_came_to_be_needed_since_it_was_shown_stays(here: Pinned) -> None:
    alias, weights = old_alias(here)
    blob = loose(here)
    age(here.store)
    shown = prune.plan(here.store, (), (), time.time())
    assert alias in shown.aliases
    pin = here.add("again:t", b"nobody's" * 5000)
    assert here.path(pin.weights_digest) == blob
    manifest = here.store.manifest(ModelRef.parse(alias))
    assert manifest is not None
    here.store.write_manifest(ModelRef.parse("theirs:t"), manifest)
    age(here.store)
    known = (usage.KnownLock("mine", (replace(pin, alias=alias),)),)
    both = shown.both(prune.plan(here.store, known, (), time.time()))
    assert alias not in both.aliases
    assert not {str(blob), str(weights)} & {file.path for file in both.files}


def waits_for_lock() -> bool:
    """Whether some lock of this process waits, as the kernel lists it."""
    return any("->" in line and f" {os.getpid()} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_it_waits_for_another_llmctl_and_looks_again(here: Pinned) -> None:
    blob = loose(here)
    age(here.store)
    descriptor = os.open(here.store.path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    ran: list[Ran] = []
    thread = threading.Thread(target=lambda: ran.append(here("prune", "--yes", "--json")))
    thread.start()
    deadline = time.monotonic() + 30
    while not waits_for_lock() and time.monotonic() < deadline:
        time.sleep(0.01)
    # The other one was importing: now the blob belongs to a model.
    here.add("imported:t", blob.read_bytes())
    os.close(descriptor)
    thread.join()
    assert ran[0].code == 0, ran[0].err
    assert ran[0].json["files"] == []
    assert "another llmctl" in ran[0].err
    assert blob.exists()


def test_a_missing_store_and_an_empty_one_have_nothing_to_prune(here: Pinned, tmp_path: Path) -> None:
    here.store = Store(tmp_path / "empty")
    assert here("prune").code == 4
    here.store.path.mkdir()
    assert pruned(here)["files"] == []


def test_what_this_user_may_not_remove_is_left_with_the_command_for_it(here: Pinned) -> None:
    blob = loose(here)
    age(here.store)
    for folder in (here.store.path, here.store.blobs_folder):
        folder.chmod(0o555)
    shown = as_another_user(here, "prune", "--dry-run", "--json")
    ran = as_another_user(here, "prune", "--yes", "--json")
    for folder in (here.store.path, here.store.blobs_folder):
        folder.chmod(0o755)
    assert shown.returncode == 0, shown.stderr
    assert ran.returncode == 5, ran.stderr
    document = json.loads(ran.stdout)
    assert document["files"] == []
    assert document["freed_bytes"] == 0
    assert document["remedy"].startswith("sudo env LLMCTL_CONFIG_DIR=")
    assert f"prune --profile {here.folder}/profile.yaml --store {here.store.path}" in document["remedy"]
    assert blob.exists()


def test_a_store_that_this_user_may_not_read_names_the_command(here: Pinned) -> None:
    folder = here.store.path / "manifests"
    folder.chmod(0)
    ran = as_another_user(here, "prune", "--json")
    folder.chmod(0o755)
    assert ran.returncode == 1
    error = json.loads(ran.stderr.splitlines()[-1])["error"]
    assert error["code"] == "permission_denied"
    assert error["hint"].startswith("sudo env ")


def test_what_is_loaded_is_not_guessed(here: Pinned, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.client import Client
    from llmctl.errors import ServerUnreachable
    from llmctl.workflows.prune import Prune
    from llmctl.workflows.store import Place

    def silent(_: Client) -> list[object]:
        raise ServerUnreachable("the server does not answer")

    monkeypatch.setattr(Client, "ps", silent)
    old_alias(here)
    age(here.store)
    env = Env({**os.environ, "LLMCTL_CONFIG_DIR": str(here.folder)})
    place = Place(here.store, "given with --store", None)
    run = Prune(env.server, env.profile(None), place, Client("http://127.0.0.1:9"), (here.lock_path,))
    assert run.plan().aliases == ()
    assert "does not say what is loaded" in run.plan().notes[0]


def test_under_sudo_the_aliases_of_the_one_who_typed_it_stay(here: Pinned) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    alias, _ = old_alias(here)
    age(here.store)
    here.environ = {"SUDO_UID": "1000"}
    result = pruned(here)
    assert result["aliases"] == []
    assert "under sudo" in result["notes"][0]
    here.environ = {"SUDO_UID": "1000", "LLMCTL_STATE_DIR": os.environ["XDG_STATE_HOME"]}
    assert pruned(here)["aliases"] == [alias]


def test_it_is_readable_in_forty_columns(here: Pinned) -> None:
    from llmctl.output.prune import prune_lines
    from llmctl.workflows.prune import PruneResult

    files = (prune.PrunedFile("/x/blobs/sha256-1", "blob", 10, 4096),)
    result = PruneResult("/x", "given with --store", True, ("llmctl/m:0123456789ab",), files, 4096, ("a note",), None)
    for width in (40, 80):
        lines = prune_lines(result, width)
        assert max(map(len, lines)) <= width
        assert any("4 KiB" in line for line in lines)


@pytest.mark.real("ollama")
def test_a_real_engine_keeps_and_loses_what_prune_says(here: Pinned, ollama_server: StartOllama) -> None:
    alias, weights = old_alias(here)
    blob = loose(here)
    age(here.store)
    server = ollama_server({"OLLAMA_NOPRUNE": "1"}, models=here.store.path)
    here.url = server.url
    names = {model["name"] for model in server.get("/api/tags")["models"]}
    assert alias in names
    done: Ran = here("prune", "--yes", "--json", given=False)
    assert done.code == 0, done.err
    assert done.json["aliases"] == [alias]
    assert not weights.exists()
    assert not blob.exists()
    left = {model["name"] for model in server.get("/api/tags")["models"]}
    assert left == names - {alias}
    assert here("verify", given=False).code in {0, 5}


@pytest.mark.real("ollama")
def test_in_a_server_s_own_store_aliases_go_through_the_server(here: Pinned, ollama_server: StartOllama) -> None:
    alias, weights = old_alias(here)
    blob = loose(here)
    age(here.store)
    here.url = ollama_server({"OLLAMA_NOPRUNE": "1"}, models=here.store.path).url.removeprefix("http://")
    folders = [here.store.path, here.store.blobs_folder, here.store.path / "manifests"]
    for folder in folders:
        folder.chmod(0o555)
    ran = as_another_user(here, "prune", "--yes", "--json")
    for folder in folders:
        folder.chmod(0o755)
    assert ran.returncode == 5, ran.stderr
    document = json.loads(ran.stdout)
    assert document["aliases"] == [alias]
    assert str(weights) in {file["path"] for file in document["files"]}
    assert not weights.exists()
    assert blob.exists()
    assert document["remedy"].startswith("sudo env ")


def test_weights_stay_whose_pin_has_no_layers(here: Pinned) -> None:
    """A lock that was made without sight of the store."""
    pin = here.lock.models[0]
    for name in (pin.served, pin.alias):
        here.store.remove_manifest(ModelRef.parse(name))
    here.lock = Lock((replace(pin, layers=(), config=None),))
    lock_file.write(here.lock_path, here.lock)
    age(here.store)
    assert str(here.path(pin.weights_digest)) not in {file["path"] for file in pruned(here)["files"]}
    assert here.path(pin.weights_digest).exists()


def test_blobs_come_back_where_something_began_to_arrive_meanwhile(here: Pinned) -> None:
    blob = loose(here)
    age(here.store)
    plan = prune.plan(here.store, (), (), time.time())
    assert str(blob) in {file.path for file in plan.files}
    # A foreign pull passes over the blobs that it finds; its manifest comes at its end.
    loose(here, b"arriving" * 100)
    prune.carry_out(here.store, plan, time.time())
    assert blob.read_bytes() == b"nobody's" * 5000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root removes other users' files")
def test_a_link_in_a_store_leads_root_to_nobody_else_s_files() -> None:
    # Not below tmp_path, into which only the user of the tests may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store, victim = Store(folder / "models"), folder / "victim"
        victim.mkdir()
        store.path.mkdir()
        left = victim / ("sha256-" + "e" * 64 + "-partial")
        left.write_text("of another store")
        os.utime(left, (0, 0))
        store.scratch.symlink_to(victim)
        os.chown(store.path, 12345, 23456)
        assert prune.plan(store, (), (), time.time()).files == ()
        store.blobs_folder.symlink_to(victim)
        plan = prune.plan(store, (), (), time.time())
        with pytest.raises(LlmctlError, match="cannot remove"):
            prune.carry_out(store, plan, time.time())
        assert left.exists()
        # After it was shown, the folder becomes a link.
        store.scratch.unlink()
        left.rename(store.make_scratch() / left.name)
        plan = prune.plan(store, (), (), time.time())
        assert [file.kind for file in plan.files] == ["scratch"]
        store.scratch.rename(store.path / "aside")
        left.write_text("of another store")
        store.scratch.symlink_to(victim)
        with pytest.raises(LlmctlError, match="cannot remove"):
            prune.carry_out(store, plan, time.time())
        assert left.exists()
