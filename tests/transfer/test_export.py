"""export: one file that another machine, skopeo and oras can take."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from llmctl.core.image_layout import PIN_TYPE, ref_for
from llmctl.core.tar import header, parsed
from llmctl.errors import ExitCode
from tests.transfer.conftest import NAME, Box, blob, digest_of, members_of, pin_for, tiny


def test_an_archive_is_an_oci_layout_with_the_very_manifest_and_its_pin(here: Box, archive: Path) -> None:
    model = tiny()
    pin = here.pin(model)
    done = here("export", NAME, "-o", str(archive), "--json")
    assert done.code == 0, done.err
    assert done.json["size_bytes"] == archive.stat().st_size
    [shown] = done.json["models"]
    assert (shown["manifest_digest"], shown["licensed"]) == (model.digest, True)

    members = members_of(archive)
    assert json.loads(members["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    native, artifact = json.loads(members["index.json"])["manifests"]
    assert (native["digest"], native["annotations"]["org.opencontainers.image.ref.name"]) == (
        model.digest,
        shown["ref"],
    )
    assert native["annotations"]["llmctl.name"] == NAME
    assert native["annotations"]["llmctl.alias"] == pin.alias
    assert members[blob(model.digest)] == model.manifest
    assert artifact["artifactType"] == PIN_TYPE
    document = json.loads(members[blob(artifact["digest"])])
    assert document["subject"]["digest"] == model.digest
    assert json.loads(members[blob(document["layers"][0]["digest"])]) == pin.to_dict()
    for name, content in members.items():
        assert not name.startswith("blobs/") or blob(digest_of(content)) == name
    assert {blob(digest) for digest in model.blobs} <= members.keys()


def test_the_same_pins_give_the_same_bytes_and_weights_come_last(here: Box, there: Box, tmp_path: Path) -> None:
    small, large = tiny(), tiny(b"x" * 100_000)
    for box in (here, there):
        box.pin(small)
        box.pin(large, "big:q4_K_M")
    one, other = tmp_path / "1.tar", tmp_path / "2.tar"
    assert here("export", NAME, "big:q4_K_M", "-o", str(one)).code == 0
    assert there("export", "big:q4_K_M", NAME, NAME, "-o", str(other)).code == 0
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as tar:
        found = tar.getmembers()
    assert [member.name for member in found[:2]] == ["oci-layout", "index.json"]
    assert [member.name for member in found[-2:]] == [blob(small.weights), blob(large.weights)]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in found} == {(0, 0, 0, "")}


def test_what_is_not_pinned_or_not_there_is_said_with_the_command(here: Box, archive: Path) -> None:
    unpinned = here("export", "qwen3:8b", "-o", str(archive))
    assert unpinned.code == ExitCode.NOT_FOUND
    assert "llmctl pull qwen3:8b" in unpinned.err
    pin = here.pin(tiny())
    here.store.manifest_path(here_ref(pin.alias)).unlink()
    assert here("export", NAME, "-o", str(archive)).code == ExitCode.NOT_FOUND
    assert not archive.exists()


def here_ref(name: str):  # type: ignore[no-untyped-def]
    from llmctl.core.model import ModelRef

    return ModelRef.parse(name)


def test_the_plain_name_serves_where_the_alias_is_gone(here: Box, archive: Path) -> None:
    model = tiny()
    pin = here.pin(model)
    here.store.write_manifest(here_ref(NAME), model.manifest)
    here.store.remove_manifest(here_ref(pin.alias))
    assert here("export", NAME, "-o", str(archive)).code == 0


@pytest.mark.parametrize("fault", ["flipped", "cut", "longer", "missing", "manifest"])
def test_nothing_is_exported_that_does_not_hash_and_nothing_stays(here: Box, archive: Path, fault: str) -> None:
    model = tiny(b"x" * 3_000_000)
    pin = here.pin(model)
    path = here.store.blob(model.weights)
    content = path.read_bytes()
    if fault == "flipped":
        path.write_bytes(content[:-5] + b"y" + content[-4:])
    elif fault == "cut":
        path.write_bytes(content[:-1])
    elif fault == "longer":
        path.write_bytes(content + b"x")
    elif fault == "missing":
        path.unlink()
    else:
        here.store.write_manifest(here_ref(pin.alias), tiny(b"other").manifest)
    archive.write_bytes(b"what was there before")
    done = here("export", NAME, "-o", str(archive), "--force", "--json")
    assert done.code == ExitCode.NO, done.err
    assert model.weights in done.error["message"] or fault == "manifest"
    assert "llmctl repair" in done.error["hint"]
    if fault == "manifest":
        assert (done.json["pinned_digest"], done.json["found_digest"]) == (model.digest, tiny(b"other").digest)
    assert archive.read_bytes() == b"what was there before"
    assert [path.name for path in archive.parent.iterdir() if "partial" in path.name] == []


def test_a_file_that_is_there_is_replaced_with_force_only(here: Box, archive: Path) -> None:
    here.pin(tiny())
    archive.write_text("mine")
    refused = here("export", NAME, "-o", str(archive))
    assert refused.code == ExitCode.USAGE
    assert "--force" in refused.err
    assert archive.read_text() == "mine"
    assert here("export", NAME, "-o", str(archive), "--force").code == 0
    assert here("export", NAME, "-o", str(archive.parent)).code == ExitCode.USAGE


def test_only_a_file_is_written_or_replaced(here: Box, tmp_path: Path) -> None:
    """As `-o /dev/null`, which root could replace."""
    here.pin(tiny())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for force in ([], ["--force"]):
        done = here("export", NAME, "-o", str(pipe), *force)
        assert done.code == ExitCode.USAGE
        assert "no regular file" in done.err
        assert pipe.is_fifo()


def test_stdout_carries_the_archive_or_json_and_never_both(here: Box) -> None:
    here.pin(tiny())
    done = here("export", NAME, "-o", "-", "--json")
    assert (done.code, done.out, done.error["code"]) == (ExitCode.USAGE, "", "usage")


def test_what_a_killed_export_left_is_written_over_and_two_at_once_are_not_mixed(here: Box, archive: Path) -> None:
    here.pin(tiny())
    unfinished = archive.with_name(f".{archive.name}.partial")
    unfinished.write_bytes(b"x" * 1_000_000)
    with unfinished.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        busy = here("export", NAME, "-o", str(archive), "--json")
        assert (busy.code, busy.error["code"]) == (1, "file_busy")
        assert unfinished.stat().st_size == 1_000_000
    done = here("export", NAME, "-o", str(archive), "--json")
    assert done.code == 0, done.err
    assert archive.stat().st_size == done.json["size_bytes"]
    assert not unfinished.exists()


def test_a_model_that_ollama_made_keeps_the_pin_of_its_weights(here: Box, archive: Path) -> None:
    """The lock is another machine's: its manifest digest is not the one here, and the weights are the same."""
    model = tiny(licence=None)
    elsewhere = "sha256:" + "9" * 64
    here.pin(model, "mine:latest", source="file", registry=None, manifest_digest=elsewhere)
    done = here("export", "mine", "-o", str(archive), "--json")
    assert done.code == 0, done.err
    assert done.json["models"][0]["licensed"] is False
    assert done.json["models"][0]["manifest_digest"] == model.digest
    assert members_of(archive)[blob(model.digest)] == model.manifest


def test_stdout_gets_the_same_bytes(here: Box, archive: Path) -> None:
    here.pin(tiny())
    assert here("export", NAME, "-o", str(archive)).code == 0
    command = [sys.executable, "-m", "llmctl", "export", NAME, "-o", "-"]
    done = subprocess.run(command, env=here.settings, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == archive.read_bytes()
    assert b"with its pin" in done.stderr


@pytest.mark.real("tmpfs")
def test_a_full_disk_is_asked_before_and_leaves_nothing(here: Box, small_disk) -> None:  # type: ignore[no-untyped-def]
    here.pin(tiny())
    folder = small_disk(1 << 20)
    done = here("export", NAME, "-o", str(folder / "a.tar"), "--json")
    assert (done.code, done.error["code"]) == (1, "disk_full")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("size_bytes", [0, 511, 8 << 30, (8 << 30) - 1, 43 << 30, 1 << 50])
def test_a_member_may_be_larger_than_the_octal_field(size_bytes: int) -> None:
    """Checked against a reader that is not llmctl's: GNU tar's own listing."""
    block = header("blobs/sha256/" + "0" * 64, size_bytes)
    assert len(block) == 512
    assert parsed(block).size == size_bytes
    listed = subprocess.run(["tar", "tvf", "-"], input=block, capture_output=True, text=False, timeout=60)
    assert f" {size_bytes} ".encode() in listed.stdout


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("qwen3:8b-q4_K_M", "qwen3-8b-q4_K_M"),
        ("hf.co/u/r:Q4_K_M", "hf.co-u-r-Q4_K_M"),
        ("127.0.0.1:5000/a/b__c:_x", "127.0.0.1-5000-a-b-c-x"),
        ("a" * 120 + ":b", "a" * 100 + "-" + "7" * 12),
        ("taken:here", "taken-here-" + "7" * 12),
    ],
)
def test_a_reference_is_what_every_tool_takes(name: str, ref: str) -> None:
    assert ref_for(name, "sha256:" + "7" * 64, ["taken-here"]) == ref


def test_pins_of_one_name_in_other_words_are_one(here: Box, archive: Path) -> None:
    pin = here.pin(tiny(), "tiny:latest")
    done = here("export", "tiny", pin.alias, "-o", str(archive), "--json")
    assert [model["name"] for model in done.json["models"]] == ["tiny:latest"]
    assert pin_for(tiny(), "tiny:latest") == pin
