"""A lock file that is damaged, another one's, or in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.faults import fault
from tests.faults.conftest import Box, finished

pytestmark = pytest.mark.real("ollama")


def spoil(box: Box, how: str) -> None:
    text = box.lock_path.read_text()
    document = yaml.safe_load(text)
    if how == "cut":
        text = text[: len(text) // 2]
    elif how == "newer":
        text = yaml.safe_dump(document | {"schema": 2, "signed_by": "somebody"})
    elif how == "twice":
        text = yaml.safe_dump(document | {"models": document["models"] * 2})
    elif how == "digest":
        text = text.replace("sha256:", "sha256:../", 1)
    elif how == "bytes":
        text = "\0\0\0"
    box.lock_path.write_text(text)


@fault(
    what="The lock file is cut in the middle",
    how="its second half taken away",
    happens="exit 2, `bad_lock`, from every verb that reads it, with the command that puts it aside",
    left="the lock as it is; the store untouched",
    how_spoiled="cut",
)
@fault(
    what="The lock file was written by a newer llmctl",
    how="`schema: 2` and a key that is not known",
    happens="exit 2, `bad_lock`; says which schema it reads, and that a newer llmctl is needed",
    left="the lock as it is; the store untouched",
    how_spoiled="newer",
)
@fault(
    what="The lock file pins one name twice",
    how="its only pin written twice, as a bad merge leaves it",
    happens="exit 2, `bad_lock`",
    left="the lock as it is; the store untouched",
    how_spoiled="twice",
)
@fault(
    what="The lock file has a digest that is none",
    how="`sha256:../` in place of a digest",
    happens="exit 2, `bad_lock`; nothing outside the store is looked at",
    left="the lock as it is; the store untouched",
    how_spoiled="digest",
)
@fault(
    what="The lock file is full of zeros",
    how="three zero bytes, as a power cut leaves a file that nobody synced",
    happens="exit 2, `bad_lock`",
    left="the lock as it is; the store untouched",
    how_spoiled="bytes",
)
def test_lock_that_is_none(box: Box, how_spoiled: str) -> None:
    model = box.pulled()
    good = box.lock_path.read_bytes()
    tags = box.tags()
    spoil(box, how_spoiled)
    spoiled = box.lock_path.read_bytes()
    for words in (["pull", model.name, "--update"], ["verify"], ["rm", model.name, "--yes"]):
        done = box(*words)
        assert done.code == 2, f"{words}: {done.err}"
        assert f"{box.lock_path} is no lock file" in done.err
        assert f"hint: {'if a newer llmctl' if how_spoiled == 'newer' else f'mv {box.lock_path} '}" in done.err
    assert box.lock_path.read_bytes() == spoiled
    assert box.tags() == tags
    box.lock_path.write_bytes(good)
    box.sound()


@fault(
    what="The lock file is a folder",
    how="a folder of that name",
    happens="exit 1; says that it is a folder",
    left="the folder",
)
def test_lock_is_a_folder(box: Box) -> None:
    model = box.publish()
    box.lock_path.mkdir()
    done = box("pull", model.name)
    assert done.code == 1
    assert "it is a folder" in done.err
    assert box.tags() == {}
    box.lock_path.rmdir()
    box.nothing_happened()


@fault(
    what="The lock file may not be written",
    how="its folder takes no new files from this user",
    happens="exit 1, `permission_denied`, with the path; with the rights back, the next pull downloads nothing",
    left="the model, not pinned",
)
def test_lock_may_not_be_written(box: Box) -> None:
    model = box.publish()
    box.folder.chmod(0o555)
    try:
        done = box.run("pull", model.name, unprivileged=True)
    finally:
        box.folder.chmod(0o755)
    assert done.code == 1
    assert "permission denied" in done.err
    assert str(box.folder) in done.err
    assert not box.lock_path.exists()
    box.registry.sent.clear()
    assert box("pull", model.name).code == 0
    assert box.registry.sent[model.weights] == 0
    box.sound()


@fault(
    what="The lock file is a symlink",
    how="a link to a file in another folder, as people who keep their settings in git have it",
    happens="exit 0",
    left="the link, and the pin in the file that it points to",
)
def test_lock_is_a_symlink(box: Box, tmp_path: Path) -> None:
    kept = tmp_path / "kept.lock"
    kept.write_text("schema: 1\nmodels: []\n")
    box.lock_path.symlink_to(kept)
    model = box.pulled()
    assert box.lock_path.is_symlink()
    assert model.weights in kept.read_text()
    box.sound()


@fault(
    what="Somebody edited a pin",
    how="another weights digest in the lock",
    happens="`verify` exits 5 and names the blob; nothing else is done on its word",
    left="the model as it was",
)
def test_edited_pin(box: Box) -> None:
    model = box.pulled()
    other = "sha256:" + "5" * 64
    box.lock_path.write_text(box.lock_path.read_text().replace(model.weights, other))
    done = box("verify", "--json")
    assert done.code == 5
    assert other in done.out
    assert box.bad_blobs() == set()
    assert box.tags()[model.name] == model.manifest


@fault(
    what="Two pulls of two models end at the same time",
    how="two processes, one lock",
    happens="exit 0 from both",
    left="both pins",
)
def test_two_write_the_lock(box: Box) -> None:
    models = [box.publish(tag) for tag in ("a", "b", "c")]
    running = [box.start("pull", model.name) for model in models]
    done = [finished(process) for process in running]
    assert [each.code for each in done] == [0, 0, 0], done
    assert [pin.name for pin in box.lock.models] == sorted(model.name for model in models)
    box.sound()
