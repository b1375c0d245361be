"""A store whose files are damaged, replaced, or somebody else's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.system.starter import SIZE_BYTES
from tests.conftest import StartOllama
from tests.faults import fault
from tests.faults.conftest import MIB, Box, sha256
from tests.parts import starter
from tests.registry_server import Registry, digest_of

pytestmark = pytest.mark.real("ollama")

NOBODY = 65534


def flip(path: Path) -> None:
    """One bit in the middle; the size stays, and the time of change is set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def zero(path: Path) -> None:
    """4 KiB in the middle, as a bad sector comes back."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def delete(path: Path) -> None:
    path.unlink()


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_other(path: Path) -> None:
    """A link that leads to other bytes of the same length."""
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    flip(target)


DAMAGE: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (flip, zero, truncate, empty, grow, delete, dangle, folder, link_to_other)
}


@fault(
    what="One bit of a blob flipped",
    how="in the middle of the weights, the file's time set back",
    happens="`verify` exits 5 and names the blob, what was expected and what was found; `repair` fetches it",
    left="the model as it was pinned",
    damage="flip",
)
@fault(
    what="4 KiB of a blob are zeros",
    how="in the middle of the weights",
    happens="`verify` exits 5 and names the blob; `repair` fetches it",
    left="the model as it was pinned",
    damage="zero",
)
@fault(
    what="A blob is truncated",
    how="its last byte taken away",
    happens="`verify` exits 5 with both sizes; `repair` fetches it",
    left="the model as it was pinned",
    damage="truncate",
)
@fault(
    what="A blob is empty",
    how="truncated to nothing, as after a power cut",
    happens="`verify` exits 5 with both sizes; `repair` fetches it",
    left="the model as it was pinned",
    damage="empty",
)
@fault(
    what="A blob has a byte too much",
    how="one byte appended",
    happens="`verify` exits 5 with both sizes; `repair` fetches it",
    left="the model as it was pinned",
    damage="grow",
)
@fault(
    what="A blob is missing",
    how="deleted",
    happens="`verify` exits 5 and says so; `repair` fetches it",
    left="the model as it was pinned",
    damage="delete",
)
@fault(
    what="A blob is a symlink that points nowhere",
    how="the target is not there, as where another disk is not mounted",
    happens="`verify` exits 5 and names the target; `repair` puts a file in the link's place",
    left="the model as it was pinned",
    damage="dangle",
)
@fault(
    what="A blob is a folder",
    how="a folder of its name",
    happens="`verify` exits 5 and says so; `repair` puts a file in its place",
    left="the model as it was pinned; the folder in `.llmctl/`",
    damage="folder",
)
@fault(
    what="A blob is a symlink to other bytes",
    how="a link to a file of the same length",
    happens="`verify` exits 5: the bytes count, not the path; `repair` puts a file in the link's place",
    left="the model as it was pinned; the link's target as it was",
    damage="link_to_other",
)
def test_bad_blob(box: Box, damage: str) -> None:
    model = box.pulled(size_bytes=MIB)
    other = box.pulled("other", seed="other")
    DAMAGE[damage](box.blob(model.weights))
    found = box("verify", "--json")
    assert found.code == 5
    assert [blob["digest"] for blob in found.json["bad_blobs"]] == [model.weights]
    assert [entry["good"] for entry in found.json["models"]] == [
        name != model.name for name in sorted([model.name, other.name])
    ]
    # Naming one good model alone is no reason to say no.
    assert box("verify", other.name).code == 0
    box.registry.sent.clear()
    done = box("repair", "--yes")
    assert done.code == 0, done.err
    assert dict(box.registry.sent) == {model.weights: model.size_bytes}
    assert sha256(box.blob(model.weights)) == model.weights
    assert not box.blob(model.weights).is_symlink()
    assert box("verify").code == 0
    box.sound()


@fault(
    what="A small blob is damaged",
    how="one bit of the template flipped",
    happens="`verify` exits 5 and names it; `repair` fetches it and nothing else",
    left="the model as it was pinned",
)
def test_bad_template(box: Box) -> None:
    model = box.pulled(template="{{ .Prompt }} and a little more")
    template = next(layer for layer in box.lock.models[0].layers if layer.media_type.endswith(".template"))
    flip(box.blob(template.digest))
    assert box.reported() == {template.digest}
    box.registry.sent.clear()
    assert box("repair", "--yes").code == 0
    assert set(box.registry.sent) == {template.digest}
    assert model.name in box.tags()
    box.sound()


@fault(
    what="Two blobs are swapped",
    how="two weights of the same size under each other's names",
    happens="`verify` exits 5 and names both; `repair` mends both",
    left="both models as they were pinned",
)
def test_swapped_blobs(box: Box) -> None:
    one, two = box.pulled("one", seed="1"), box.pulled("two", seed="2")
    first, second = box.blob(one.weights), box.blob(two.weights)
    assert first.stat().st_size == second.stat().st_size
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert box.reported() == {one.weights, two.weights}
    assert box("repair", "--yes").code == 0
    box.sound()


@fault(
    what="A blob is a symlink to the right bytes",
    how="moved to another folder and linked, as people do where a disk is full",
    happens="exit 0 from `verify`: the bytes count",
    left="the link",
)
def test_good_symlink(box: Box, tmp_path: Path) -> None:
    model = box.pulled()
    target = tmp_path / "moved"
    shutil.move(box.blob(model.weights), target)
    box.blob(model.weights).symlink_to(target)
    box.sound()
    assert box("repair", "--yes").code == 0
    assert box.blob(model.weights).is_symlink()


@fault(
    what="A blob of 253 MB has one bit flipped",
    how="the starter's weights, in the middle",
    happens="`verify` exits 5 with the digest found; `repair` fetches the blob",
    left="the model as it was pinned",
    damage="flip",
)
@fault(
    what="A blob of 253 MB has 4 KiB of zeros",
    how="the starter's weights, in the middle",
    happens="`verify` exits 5 with the digest found; `repair` fetches the blob",
    left="the model as it was pinned",
    damage="zero",
)
@pytest.mark.real("model")
def test_large_blob(box: Box, starter_gguf: Path, damage: str) -> None:
    weights = f"sha256:{starter.SHA256}"
    box.registry.add("m:large", starter_gguf, weights)
    done = box("pull", box.registry.name("m:large"), "--yes")
    assert done.code == 0, done.err
    DAMAGE[damage](box.blob(weights))
    found = box("verify", "--json").json["bad_blobs"]
    assert [(blob["digest"], blob["found_bytes"]) for blob in found] == [(weights, SIZE_BYTES)]
    assert found[0]["found_digest"] == sha256(box.blob(weights)) != weights
    assert box("repair", "--yes").code == 0
    box.sound()


@fault(
    what="A blob may not be read",
    how="mode 000, another user's llmctl",
    happens="`verify` exits 5, says `unreadable` and gives the command: what nobody could hash is not called good",
    left="the store as it was",
)
def test_unreadable_blob(box: Box) -> None:
    model = box.pulled()
    box.blob(model.weights).chmod(0)
    done = box.run("verify", "--json", unprivileged=True)
    assert done.code == 5, done.err
    assert [(blob["digest"], blob["problem"]) for blob in done.json["bad_blobs"]] == [(model.weights, "unreadable")]
    assert "chmod" in done.json["bad_blobs"][0]["remedy"]


@fault(
    what="The store is another user's",
    how="all of it owned by `nobody`, readable; llmctl without root's rights",
    happens="`verify` works; `repair` exits 1 before anything is downloaded and names the folder",
    left="the store as it was",
    mode=0o755,
)
@fault(
    what="The store is another user's and closed",
    how="all of it owned by `nobody`, mode 700; llmctl without root's rights",
    happens="`verify` exits 1, `permission_denied`, with the command that has the rights: no verdict without a look",
    left="the store as it was",
    mode=0o700,
)
def test_store_of_another_user(box: Box, mode: int) -> None:
    model = box.pulled()
    flip(box.blob(model.weights))
    give(box.store, mode)
    done = box.run("verify", "--json", unprivileged=True)
    if mode == 0o755:
        assert done.code == 5, done.err
        assert [blob["digest"] for blob in done.json["bad_blobs"]] == [model.weights]
    else:
        assert done.code == 1
        assert "permission_denied" in done.err
        assert "sudo" in done.err
    box.registry.sent.clear()
    done = box.run("repair", "--yes", unprivileged=True)
    assert done.code == 1
    assert "sudo" in done.err
    assert not box.registry.sent


@fault(
    what="Root repairs the store of another user",
    how="all of it owned by `nobody`; llmctl as root",
    happens="exit 0",
    left="a blob that belongs to `nobody` and that everybody may read, as before",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_keeps_owner_and_modes(ollama_server: StartOllama, registry: Registry, tmp_path: Path) -> None:
    # pytest's own folders are closed to others; root does what it does in a store as the store's owner.
    with tempfile.TemporaryDirectory() as open_folder:
        Path(open_folder).chmod(0o755)
        box = Box(ollama_server(models=Path(open_folder) / "models"), registry, tmp_path / "config")
        root_keeps_owner_and_modes(box)


def root_keeps_owner_and_modes(box: Box) -> None:
    model = box.pulled()
    give(box.store, 0o755)
    flip(box.blob(model.weights))
    assert box("repair", "--yes").code == 0
    box.sound()
    for path in (box.store, *box.store.rglob("*")):
        assert path.stat().st_uid == NOBODY, path
    assert box.blob(model.weights).stat().st_mode & 0o777 == 0o644


def give(store: Path, mode: int) -> None:
    """Make all of a store another user's; without root, at least not this user's to write."""
    for path in (store, *store.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    store.chmod(mode if os.geteuid() == 0 else mode & 0o555)


def manifest_of(box: Box) -> Path:
    """The manifest file of the only pin's alias."""
    name, _, tag = box.lock.models[0].alias.partition(":")
    return box.store / "manifests" / "registry.ollama.ai" / name / tag


@fault(
    what="The alias's manifest is cut in the middle",
    how="half of the file, as Ollama leaves it when it dies while it writes",
    happens="`verify` exits 5, `damaged`; `repair` writes it anew from the plain name or the registry",
    left="the model as it was pinned",
    how_spoiled="cut",
)
@fault(
    what="The alias's manifest is empty",
    how="truncated to nothing",
    happens="`verify` exits 5, `damaged`; `repair` writes it anew",
    left="the model as it was pinned",
    how_spoiled="empty",
)
@fault(
    what="The alias is deleted",
    how="`ollama rm` of the alias",
    happens="`verify` exits 5, `missing`; `repair` brings it back without a download",
    left="the model as it was pinned",
    how_spoiled="deleted",
)
@fault(
    what="The alias stands for another model",
    how="`ollama cp` of another model over it",
    happens="`verify` exits 5, `other`, with both digests; `repair` puts the pinned one back",
    left="both models",
    how_spoiled="copied",
)
@fault(
    what="Somebody changed the alias",
    how="`ollama create` over it with another template",
    happens="`verify` exits 5, `other`, with both digests; `repair` puts the pinned one back",
    left="the model as it was pinned",
    how_spoiled="created",
)
def test_bad_manifest(box: Box, how_spoiled: str) -> None:
    model = box.pulled()
    other = box.publish("other", seed="other")
    box.server.post("/api/pull", {"model": other.name, "insecure": True})
    alias = box.lock.models[0].alias
    path = manifest_of(box)
    assert digest_of(path.read_bytes()) == model.manifest
    if how_spoiled == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how_spoiled == "empty":
        os.truncate(path, 0)
    elif how_spoiled == "deleted":
        box.server.request("DELETE", "/api/delete", {"model": alias})
    elif how_spoiled == "copied":
        box.server.post("/api/copy", {"source": other.name, "destination": alias})
    else:
        box.server.post("/api/create", {"model": alias, "from": model.name, "template": "changed {{ .Prompt }}"})
    done = box("verify", "--json")
    assert done.code == 5
    states = {"cut": "damaged", "empty": "damaged", "deleted": "missing"}
    assert [bad["state"] for bad in done.json["bad_manifests"]] == [states.get(how_spoiled, "other")]
    box.registry.sent.clear()
    repaired = box("repair", "--yes")
    assert repaired.code == 0, repaired.err
    assert not box.registry.sent
    assert digest_of(path.read_bytes()) == model.manifest
    assert box.tags()[alias] == model.manifest
    box.sound()


@fault(
    what="The registry forgot the blob that is to be repaired",
    how="404 for the blob that the lock names",
    happens="exit 1 or 4 from `repair`, which names the blob; `verify` goes on saying 5",
    left="the bad blob where it was",
    answer="missing",
)
@fault(
    what="The registry has other bytes under the digest that is to be repaired",
    how="one bit flipped in every answer",
    happens="exit 1 from `repair` with the digest that came; nothing is put in place that does not hash",
    left="the bad blob where it was",
    answer="flipped",
)
@fault(
    what="A login page answers the repair",
    how="200 with HTML for the blob",
    happens="exit 1 from `repair`",
    left="the bad blob where it was",
    answer="page",
)
def test_repair_finds_no_good_bytes(box: Box, answer: str) -> None:
    model = box.pulled()
    flip(box.blob(model.weights))
    damaged = sha256(box.blob(model.weights))
    box.registry.blob_fault = answer  # type: ignore[assignment]
    done = box("repair", "--yes")
    assert done.code != 0
    assert model.weights[7:19] in done.err + done.out
    assert sha256(box.blob(model.weights)) == damaged
    box.sound(bad={model.weights})
    box.registry.blob_fault = None
    assert box("repair", "--yes").code == 0
    box.sound()


@fault(
    what="Nobody answers the repair",
    how="the registry is gone",
    happens="exit 1 from `repair`, which names the registry",
    left="the bad blob where it was",
)
def test_repair_without_a_registry(box: Box, tmp_path: Path, ollama_server: StartOllama) -> None:
    from tests.registry_server import serving

    with serving(tmp_path / "passing") as registry:
        here = Box(box.server, registry, box.folder)
        model = here.pulled()
        registry_host = registry.host
    flip(here.blob(model.weights))
    done = here("repair", "--yes")
    assert done.code == 1
    assert registry_host.partition(":")[0] in done.err
    here.sound(bad={model.weights})


@fault(
    what="Rubbish lies in llmctl's scratch folder",
    how="half a manifest and half a blob in `.llmctl/`, as a crash leaves them",
    happens="every verb works; a half blob is hashed before it is gone on with, and thrown away where it is wrong",
    left="the model as it was pinned",
)
def test_scratch_leftovers(box: Box) -> None:
    model = box.pulled(size_bytes=MIB)
    scratch = box.store / ".llmctl"
    scratch.mkdir(exist_ok=True)
    (scratch / "something").write_bytes(b"x" * 100)
    (scratch / f"{model.weights.replace(':', '-')}.part").write_bytes(b"wrong" * 1000)
    assert box("verify").code == 0
    flip(box.blob(model.weights))
    assert box("repair", "--yes").code == 0
    box.sound()


@fault(
    what="A foreign file lies among the blobs",
    how="`blobs/notes.txt` and a blob that no model names",
    happens="`verify` passes them over; `prune --dry-run` names what it would delete, and deletes nothing",
    left="both files",
)
def test_foreign_files(box: Box) -> None:
    box.pulled()
    notes, stray = box.store / "blobs" / "notes.txt", box.blob(digest_of(b"stray"))
    notes.write_text("mine")
    stray.write_bytes(b"stray")
    assert box("verify").code == 0
    done = box("prune", "--dry-run")
    assert done.code == 0, done.err
    assert notes.exists()
    assert stray.exists()
    box.sound()


@fault(
    what="Pull meets a damaged blob that is there already",
    how="the weights in the store under their name, one bit flipped, no pin",
    happens="exit 1, `damaged_blob`: Ollama takes what is there as it is, llmctl hashes it before it pins; the hint is "
    "the command that deletes it and pulls again",
    left="the damaged blob; no pin",
)
def test_pull_over_a_bad_blob(box: Box) -> None:
    model = box.publish()
    box.server.post("/api/pull", {"model": model.name, "insecure": True})
    flip(box.blob(model.weights))
    done = box("pull", model.name)
    assert done.code == 1
    assert model.weights in done.err
    assert f"hint: rm -r {box.blob(model.weights)} && llmctl pull {model.name}" in done.err
    assert box.lock.models == ()
    box.blob(model.weights).unlink()
    assert box("pull", model.name).code == 0
    box.sound()


@fault(
    what="Pull meets a model whose weights are gone",
    how="the manifest in the store, its weights deleted, no pin",
    happens="exit 0: the model is pulled again",
    left="the model, pinned",
)
def test_pull_over_a_missing_blob(box: Box) -> None:
    model = box.publish()
    box.server.post("/api/pull", {"model": model.name, "insecure": True})
    box.blob(model.weights).unlink()
    done = box("pull", model.name)
    assert done.code == 0, done.err
    box.sound()
