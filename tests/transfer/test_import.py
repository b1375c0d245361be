"""import: nothing visible that does not hash, nothing lost that did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.model import ModelRef
from llmctl.core.pin import Lock
from llmctl.errors import ExitCode
from llmctl.library import imported, lock_file
from llmctl.system.store import Store
from tests.transfer.conftest import NAME, Box, NewBox, blob, digest_of, fill, members_of, pin_for, tar_of, tiny


def exported(box: Box, archive: Path, *names: str) -> Path:
    done = box("export", *names, "-o", str(archive), "--force")
    assert done.code == 0, done.err
    return archive


def manifest(box: Box, name: str) -> bytes | None:
    return box.store.manifest(ModelRef.parse(name))


def test_a_model_arrives_pinned_under_its_alias_and_its_free_name(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    pin = here.pin(model)
    done = there("import", str(exported(here, archive, NAME)), "--json")
    assert done.code == 0, done.err
    assert there.lock == here.lock
    assert manifest(there, pin.alias) == manifest(there, NAME) == model.manifest
    for digest, content in model.blobs.items():
        assert there.store.blob(digest).read_bytes() == content
        assert there.store.blob(digest).stat().st_mode & 0o777 == 0o644
    assert list(there.store.scratch.iterdir()) == []
    [shown] = done.json["models"]
    assert (shown["change"], shown["plain"], shown["licensed"], shown["pinned"]) == ("new", "written", True, True)
    assert done.json["written_bytes"] == sum(map(len, model.blobs.values()))

    before = there.files(), there.lock_path.stat().st_mtime_ns
    again = there("import", str(archive), "--json")
    assert again.json["written_bytes"] == 0
    assert [model["change"] for model in again.json["models"]] == ["same"]
    assert (there.files(), there.lock_path.stat().st_mtime_ns) == before


def test_a_dry_run_says_it_and_writes_nothing(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    exported(here, archive, NAME)
    done = there("import", str(archive), "--dry-run", "--json")
    assert done.code == 0, done.err
    assert done.json["dry_run"] is True
    assert done.json["written_bytes"] > 0
    assert there.files() == {}
    assert not there.lock_path.exists()
    assert "would write" in there("import", str(archive), "--dry-run").out


def test_a_plain_name_that_stands_for_another_model_is_left_alone(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    mine = tiny(b"mine")
    fill(there.store, mine, NAME)
    done = there("import", str(exported(here, archive, NAME)))
    assert done.code == 0, done.err
    assert "left alone" in done.out
    assert manifest(there, NAME) == mine.manifest


def test_another_pin_is_refused_with_both_digests_until_update(here: Box, there: Box, archive: Path) -> None:
    new, old = tiny(b"new"), tiny(b"old")
    here.pin(new)
    there.pin(old)
    before = there.files(), there.lock
    exported(here, archive, NAME)
    refused = there("import", str(archive), "--json")
    assert refused.code == ExitCode.NO
    assert new.digest in refused.error["message"]
    assert old.digest in refused.error["message"]
    assert "--update" in refused.error["hint"]
    assert (refused.json["pinned_digest"], refused.json["found_digest"]) == (old.digest, new.digest)
    assert [change["part"] for change in refused.json["changes"]] == ["weights"]
    assert refused.err == ""
    assert (there.files(), there.lock) == before
    done = there("import", str(archive), "--update", "--json")
    assert [model["change"] for model in done.json["models"]] == ["replaced"]
    assert there.lock == here.lock


def test_another_spelling_of_a_pinned_name_is_no_second_pin(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny(b"new"), "qwen3")
    there.pin(tiny(b"old"), "qwen3:latest")
    exported(here, archive, "library/Qwen3:latest")
    refused = there("import", str(archive), "--json")
    assert (refused.code, refused.error["code"]) == (ExitCode.NO, "drift")
    assert there("import", str(archive), "--update").code == 0
    assert there.lock == here.lock


def test_a_blob_that_is_there_counts_only_when_it_hashes(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    here.pin(model)
    exported(here, archive, NAME)
    fill(there.store, model)
    spoiled = bytearray(model.blobs[model.weights])
    spoiled[-1] ^= 1
    there.store.blob(model.weights).write_bytes(spoiled)
    done = there("import", str(archive), "--json")
    assert done.code == 0, done.err
    assert done.json["written_bytes"] == len(spoiled)
    assert there.store.blob(model.weights).read_bytes() == model.blobs[model.weights]


def test_a_symlink_in_a_blobs_place_is_replaced_not_followed(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    here.pin(model)
    precious = there.folder / "precious"
    precious.write_bytes(b"x" * len(model.blobs[model.weights]))
    there.store.blobs_folder.mkdir(parents=True)
    there.store.blob(model.weights).symlink_to(precious)
    assert there("import", str(exported(here, archive, NAME))).code == 0
    assert set(precious.read_bytes()) == set(b"x")
    assert not there.store.blob(model.weights).is_symlink()


def test_the_quantization_is_the_profiles(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    exported(here, archive, NAME)
    done = there("import", str(archive), "--quantization", "Q8_0", "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "quantization")
    assert there.files() == {}


def test_a_pin_that_lies_about_the_quantization_is_found_in_the_header(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    here.pin(model, quantization="Q8_0")
    done = there("import", str(exported(here, archive, NAME)), "--quantization", "Q8_0", "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "quantization")
    assert manifest(there, pin_for(model).alias) is None
    assert not there.store.blob(model.weights).exists()


def test_what_the_weights_say_of_themselves_is_read_from_them(here: Box, there: Box, archive: Path) -> None:
    pin = here.pin(tiny(), file_type=1, parameters=7)
    assert there("import", str(exported(here, archive, NAME))).code == 0
    assert there.lock.models == (replace(pin, file_type=15, parameters=520),)


@pytest.mark.parametrize("host", ["evil.example", "models.example:5000@evil.example"])
def test_a_pin_that_would_send_repair_to_another_host_is_refused(
    here: Box, there: Box, archive: Path, host: str
) -> None:
    here.pin(tiny(), from_=f"HTTPS://{host}/v2/team/tiny/manifests/q4_K_M")
    done = there("import", str(exported(here, archive, NAME)), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "bad_archive")
    assert f"from {host}, which is not its registry" in done.error["message"]
    assert there.files() == {}


def test_a_blob_that_left_meanwhile_keeps_every_model_out_of_sight(
    here: Box, there: Box, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the server starts between the hashing and the last step, and deletes what no manifest names."""
    pin = here.pin(tiny())
    here.pin(tiny(b"second"), "second:q4_K_M")
    exported(here, archive, NAME, "second:q4_K_M")
    # The blobs of the first are there and hash.
    fill(there.store, tiny())
    fetch = imported.fetch

    def and_lose(*arguments: Any) -> None:
        fetch(*arguments)
        there.store.blob(pin.weights_digest).unlink()

    monkeypatch.setattr(imported, "fetch", and_lose)
    done = there("import", str(archive), "--json")
    assert done.code == ExitCode.FAILED
    assert pin.weights_digest in done.error["message"]
    assert list(there.store.names()) == []
    assert not there.lock_path.exists()
    monkeypatch.undo()
    assert there("import", str(archive)).code == 0


def test_weights_that_are_no_gguf_are_not_accepted(here: Box, there: Box, archive: Path) -> None:
    model = tiny(weights=b"#!/bin/sh\n" * 100)
    here.pin(model)
    done = there("import", str(exported(here, archive, NAME)), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "bad_archive")
    assert not there.lock_path.exists()
    assert not there.store.blob(model.weights).exists()


def test_a_pin_of_ollamas_own_making_comes_with_its_alias_only(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    pin = here.pin(model, "mine:latest", source="file", registry=None)
    done = there("import", str(exported(here, archive, "mine")), "--json")
    assert done.code == 0, done.err
    assert done.json["models"][0]["plain"] is None
    assert manifest(there, "mine:latest") is None
    assert manifest(there, pin.alias) == model.manifest
    # The team's lock was written on another machine; its pin stays, and its alias is what the model gets.
    other = replace(pin, manifest_digest="sha256:" + "8" * 64, alias="llmctl/mine_-latest:888888888888")
    lock_file.write(there.lock_path, Lock((other,)))
    assert there("import", str(archive)).code == 0
    assert there.lock.pin("mine:latest") == other
    assert manifest(there, other.alias) == model.manifest


def test_a_folder_a_pipe_and_a_file_give_the_same(here: Box, new_box: NewBox, archive: Path, tmp_path: Path) -> None:
    model = tiny(b"z" * 6_000_000)
    here.pin(model)
    exported(here, archive, NAME)
    folder = tmp_path / "layout"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    from_file, from_folder, from_pipe = (new_box(name) for name in ("file", "folder", "pipe"))
    assert from_file("import", str(archive)).code == 0
    assert from_folder("import", str(folder)).code == 0
    with archive.open("rb") as file:
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
    command = [sys.executable, "-m", "llmctl", "import", "-"]
    done = subprocess.run(command, env=from_pipe.settings, stdin=cat.stdout, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    cat.stdout.close()  # type: ignore[union-attr]
    assert cat.wait() == 0
    assert from_file.files() == from_folder.files() == from_pipe.files()
    assert from_file.lock == from_folder.lock == from_pipe.lock == here.lock


def test_a_pipe_whose_index_comes_late_is_told_to_be_a_file(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny(b"z" * 6_000_000))
    members = members_of(exported(here, archive, NAME))
    late = tar_of(dict(reversed(members.items())))
    command = [sys.executable, "-m", "llmctl", "import", "-"]
    done = subprocess.run(command, env=there.settings, input=late, capture_output=True, timeout=60)
    assert done.returncode == ExitCode.NO
    assert b"as a file" in done.stderr
    archive.write_bytes(late)
    assert there("import", str(archive)).code == 0


def bare(archive: Path, annotations: dict[str, str]) -> None:
    """An archive as other tools make it: a manifest and its blobs, no pin."""
    model = tiny()
    entry = {"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": model.digest}
    entry |= {"size": len(model.manifest), "annotations": annotations}  # type: ignore[dict-item]
    members = {blob(digest): content for digest, content in {**model.blobs, model.digest: model.manifest}.items()}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    archive.write_bytes(tar_of({**members, "index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}))


def test_an_archive_without_a_pin_is_pinned_from_what_came(there: Box, archive: Path) -> None:
    bare(archive, {"org.opencontainers.image.ref.name": "latest"})
    unnamed = there("import", str(archive))
    assert unnamed.code == ExitCode.USAGE
    assert "--name" in unnamed.err
    done = there("import", str(archive), "--name", "qwen3:8b", "--json")
    assert done.code == 0, done.err
    assert done.json["models"][0]["pinned"] is False
    pin = there.lock.pin("qwen3:8b")
    model = tiny()
    assert pin is not None
    assert (pin.manifest_digest, pin.weights_digest, pin.source) == (model.digest, model.weights, "registry")
    assert (pin.quantization, pin.file_type, pin.registry) == ("Q4_K_M", 15, "registry.ollama.ai")
    assert manifest(there, pin.alias) == model.manifest


def test_the_index_may_name_a_model_that_has_no_pin(there: Box, archive: Path) -> None:
    bare(archive, {"org.opencontainers.image.ref.name": "models.lan/team/qwen3:8b"})
    assert there("import", str(archive)).code == 0
    assert there.lock.pin("models.lan/team/qwen3:8b") is not None
    assert there("import", str(archive), "--name", "m:1", "--quantization", "Q8_0").code == ExitCode.NO


def test_what_belongs_to_no_model_is_left_out_and_said(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    members = members_of(exported(here, archive, NAME))
    stray = b"stray"
    archive.write_bytes(tar_of({**members, blob(digest_of(stray)): stray, "README": b"hello"}))
    done = there("import", str(archive), "--json")
    assert done.code == 0, done.err
    assert sorted(done.json["ignored"]) == ["README", blob(digest_of(stray))]
    assert not there.store.blob(digest_of(stray)).exists()


def test_a_large_import_wants_consent_and_names_the_store(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny(bytes(101_000_000)))
    exported(here, archive, NAME)
    done = there("import", str(archive), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.USAGE, "consent_needed")
    assert str(there.store.path) in done.error["message"]
    assert not there.store.blobs_folder.exists()
    assert there("import", str(archive), "--yes").code == 0


@pytest.mark.real("tmpfs")
def test_room_is_asked_for_before_anything_is_written(here: Box, there: Box, archive: Path, small_disk) -> None:  # type: ignore[no-untyped-def]
    here.pin(tiny(bytes(3_000_000)))
    exported(here, archive, NAME)
    disk = small_disk(2 << 20)
    done = there("import", str(archive), "--store", str(disk), "--json")
    assert (done.code, done.error["code"]) == (1, "disk_full")
    assert [path for path in disk.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_in_another_users_store_are_that_users(here: Box, there: Box, archive: Path) -> None:
    model = tiny()
    pin = here.pin(model)
    exported(here, archive, NAME)
    # Outside pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = Store(Path(folder) / "models")
        store.path.mkdir()
        os.chown(store.path, 12345, 12346)
        done = there("import", str(archive), "--store", str(store.path))
        assert done.code == 0, done.err
        paths = [store.blob(model.weights), store.manifest_path(ModelRef.parse(pin.alias))]
        for path in (*paths, *paths[1].parents[:4], store.blobs_folder):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == (12345, 12346), path
        assert os.geteuid() == 0


def test_it_waits_for_another_llmctl_that_changes_the_store_and_says_so(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    exported(here, archive, NAME)
    command = [sys.executable, "-m", "llmctl", "import", str(archive)]
    with there.store.changing(lambda: None):
        process = subprocess.Popen(command, env=there.settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        assert b"waiting for another llmctl" in process.stderr.readline()
        assert list(there.store.names()) == []
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert there.lock == here.lock


def test_the_lock_of_another_profile_that_imported_is_known_to_prune(
    here: Box, there: Box, archive: Path, tmp_path: Path
) -> None:
    pin = here.pin(tiny())
    exported(here, archive, NAME)
    team = tmp_path / "team.yaml"
    team.write_text((there.folder / "config" / "profile.yaml").read_text())
    assert there("import", str(archive), "--profile", str(team)).code == 0
    long_ago = time.time() - 30 * 86400
    for path in there.store.path.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    assert there("prune", "--yes", "--json").json["aliases"] == []
    assert manifest(there, pin.alias) is not None


def test_two_models_that_share_weights_bring_them_once(here: Box, there: Box, archive: Path) -> None:
    here.pin(tiny())
    here.pin(tiny(licence=None), "other:q4_K_M")
    here.pin(tiny(), "same:q4_K_M")
    done = there("import", str(exported(here, archive, NAME, "other:q4_K_M", "same:q4_K_M")), "--json")
    assert done.code == 0, done.err
    assert len(done.json["models"]) == 3
    assert there.lock == here.lock
    assert done.json["written_bytes"] == sum(map(len, tiny().blobs.values()))


def test_killed_at_any_byte_nothing_half_is_visible_and_the_next_run_goes_on(
    here: Box, there: Box, archive: Path
) -> None:
    first, second = tiny(b"a" * 40_000_000), tiny(b"b" * 60_000_000)
    pins = here.pin(first), here.pin(second, "second:q4_K_M")
    exported(here, archive, NAME, "second:q4_K_M")
    command = [sys.executable, "-m", "llmctl", "import", str(archive), "--yes"]
    process = subprocess.Popen(command, env=there.settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unfinished = there.store.scratch / f"import-{second.weights[7:]}"
    deadline = time.monotonic() + 60
    while not (unfinished.exists() and unfinished.stat().st_size > 1_000_000):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert unfinished.exists()
    assert not there.store.blob(second.weights).exists()
    assert list(there.store.names()) == []
    assert not there.lock_path.exists()

    done = there("import", str(archive), "--yes", "--json")
    assert done.code == 0, done.err
    assert done.json["present_bytes"] >= len(first.blobs[first.weights])
    assert done.json["written_bytes"] == len(second.blobs[second.weights])
    assert not unfinished.exists()
    assert {pin.alias for pin in pins} <= {str(name) for name in there.store.names()}
