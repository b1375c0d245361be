"""Archives made to do harm, or damaged: each is refused, says why, and nothing of it is visible."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.image_layout import Packed, documents
from llmctl.core.manifest import MEDIA_TYPE, parse_manifest
from llmctl.core.tar import header
from llmctl.errors import ExitCode
from tests.transfer.conftest import NAME, Box, Tiny, blob, digest_of, fill, pin_for, tar_of, tiny

Members = dict[str, bytes]
MODEL = tiny(b"x" * 2_000_000)
OUTSIDE = "outside"


def whole(*models: tuple[str, Tiny], **changed: Any) -> Members:
    """The members of a good archive, in order; `changed` are fields of the pins."""
    packed = [
        Packed(
            replace(pin_for(model, name), **changed), parse_manifest(model.manifest), model.manifest, f"ref-{number}"
        )
        for number, (name, model) in enumerate(models or ((NAME, MODEL),))
    ]
    members = documents(packed)
    for _, model in models or ((NAME, MODEL),):
        members |= {blob(digest): content for digest, content in model.blobs.items()}
    return members


def index(members: Members, change: Callable[[Any], None]) -> bytes:
    document = json.loads(members["index.json"])
    change(document)
    return tar_of({**members, "index.json": json.dumps(document).encode()})


def with_manifest(change: Callable[[Any], None]) -> bytes:
    """A bare manifest, changed, that the index names as a model."""
    document = json.loads(MODEL.manifest)
    change(document)
    content = json.dumps(document).encode()
    entry = {"mediaType": document["mediaType"], "digest": digest_of(content), "size": len(content)}
    entry["annotations"] = {"llmctl.name": NAME}
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', blob(digest_of(content)): content}
    members |= {blob(digest): data for digest, data in MODEL.blobs.items()}
    return tar_of({**members, "index.json": json.dumps({"manifests": [entry]}).encode()})


def with_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", first: bool = True, **more: Any) -> bytes:
    """A good archive with one more member of a kind of its own."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        for key, value in more.items():
            setattr(info, key, value)
        if first:
            tar.addfile(info)
        for each, content in whole().items():
            member = tarfile.TarInfo(each)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if not first:
            tar.addfile(info)
    return target.getvalue()


def twice() -> bytes:
    return tar_without_end(whole(), "") + tar_of({blob(MODEL.weights): b"other"})


def exchanged() -> bytes:
    members = whole()
    one, other = blob(MODEL.weights), next(blob(digest) for digest in MODEL.blobs if digest != MODEL.weights)
    return tar_of({**members, one: members[other], other: members[one]})


def flipped() -> bytes:
    content = bytearray(MODEL.blobs[MODEL.weights])
    content[-1] ^= 1
    return tar_of({**whole(), blob(MODEL.weights): bytes(content)})


def altered(old: bytes, new: bytes, members: Members) -> bytes:
    """Documents that say something else than their digests stand for, at the same length."""
    return tar_of(
        {name: content if name == "index.json" else content.replace(old, new) for name, content in members.items()}
    )


def bare() -> Members:
    native = {"mediaType": MEDIA_TYPE, "digest": MODEL.digest, "size": len(MODEL.manifest)}
    index = {"manifests": [native | {"annotations": {"llmctl.name": NAME}}]}
    members = {"oci-layout": b"{}", "index.json": json.dumps(index).encode(), blob(MODEL.digest): MODEL.manifest}
    return members | {blob(digest): content for digest, content in MODEL.blobs.items()}


def size_bomb() -> bytes:
    """The header of the weights promises an exabyte."""
    name = blob(MODEL.weights)
    return tar_without_end(whole(), name) + header(name, 1 << 60)


def tar_without_end(members: Members, left_out: str) -> bytes:
    parts = []
    for name, content in members.items():
        if name != left_out:
            parts += [header(name, len(content)), content, bytes(-len(content) % 512)]
    return b"".join(parts)


def without(name: str) -> bytes:
    return tar_of({key: value for key, value in whole().items() if key != name})


def nested(levels: int) -> bytes:
    members = whole()
    inner = members["index.json"]
    for _ in range(levels):
        entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(inner), "size": len(inner)}
        members[blob(digest_of(inner))] = inner
        inner = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return tar_of({**members, "index.json": inner})


def deep() -> bytes:
    return tar_of({**whole(), "index.json": b"[" * 1_000_000})


def absurd_size(document: Any) -> None:
    document["manifests"][1]["size"] = 1 << 62


def gone(document: Any) -> None:
    document["manifests"][1]["digest"] = "sha256:" + "0" * 64


def other_algorithm(document: Any) -> None:
    document["manifests"][1]["digest"] = "sha512:" + "0" * 128


def outside(document: Any) -> None:
    document["manifests"][1]["digest"] = "sha256:../../../etc/passwd"


def crowd(document: Any) -> None:
    document["manifests"] *= 600


def layer_outside(document: Any) -> None:
    document["layers"][0]["digest"] = f"sha256:../{OUTSIDE}"


def layer_huge(document: Any) -> None:
    document["layers"][0]["size"] = 1 << 52


def layer_negative(document: Any) -> None:
    document["layers"][0]["size"] = -1


def no_weights(document: Any) -> None:
    document["layers"] = []


def many_layers(document: Any) -> None:
    document["layers"] *= 5000


def pax(records: bytes) -> bytes:
    """An extended header of one's own before a good archive."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.GNU_FORMAT) + records + bytes(-len(records) % 512) + tar_of(whole())


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name that leads up": (lambda: with_member(f"../{OUTSIDE}"), "leads outside"),
    "a name that leads up from inside": (lambda: with_member(f"blobs/sha256/../../../{OUTSIDE}"), "leads outside"),
    "an absolute name": (lambda: with_member(f"/tmp/{OUTSIDE}"), "leads outside"),
    "an absolute name in PAX": (lambda: pax(b"24 path=/tmp/over-there\n"), "leads outside"),
    "a symbolic link": (lambda: with_member("blobs", tarfile.SYMTYPE, "/etc"), "a link"),
    "a hard link": (lambda: with_member("index.json", tarfile.LNKTYPE, "/etc/passwd"), "a link"),
    "a device": (lambda: with_member("x", tarfile.BLKTYPE, devmajor=8), "a device"),
    "a pipe": (lambda: with_member("x", tarfile.FIFOTYPE), "a pipe"),
    "a sparse member": (lambda: with_member("x", tarfile.GNUTYPE_SPARSE), "of type"),
    "a sparse member in PAX": (lambda: pax(b"22 GNU.sparse.major=1\n"), "sparse"),
    "a blob twice": (twice, "twice"),
    "a PAX header that lies about its length": (lambda: pax(b"99999 path=x\n"), "damaged extended header"),
    "a PAX header whose length has thousands of digits": (
        lambda: pax(b"000005500" + b"0" * 5000 + b" path=" + b"x" * 600),
        "damaged extended header",
    ),
    "a PAX header with a negative size": (lambda: pax(b"11 size=-1\n"), "impossible size"),
    "a PAX header of a megabyte": (lambda: pax(b"x" * (1 << 20)), "extended header of"),
    "a size bomb in a header": (size_bomb, "cut short"),
    "blobs exchanged": (exchanged, "bytes of"),
    "a byte flipped in the weights": (flipped, "hashes to"),
    "a pin that does not hash": (lambda: altered(b"0.34.0", b"0.34.9", whole()), "hashes to"),
    "a manifest that does not hash": (lambda: altered(b"image.license", b"image.lICENSE", bare()), "hashes to"),
    "cut in the weights": (lambda: tar_of(whole())[:-1_000_000], "cut short"),
    "cut in a header": (lambda: tar_of(whole())[:700], "cut short"),
    "cut before its end": (lambda: tar_without_end(whole(), ""), "cut short"),
    "nothing at all": (lambda: b"", "cut short"),
    "no tar": (lambda: b"hello, this is no tar archive\n" * 100, "no tar archive"),
    "gzip": (lambda: gzip.compress(tar_of(whole()), 1), "gzip"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(2000), "zstd"),
    "an empty tar": (lambda: tar_of({}), "no oci-layout"),
    "no layout": (lambda: without("oci-layout"), "no oci-layout"),
    "no index": (lambda: without("index.json"), "no index.json"),
    "no weights in it": (lambda: without(blob(MODEL.weights)), "lacks the blob"),
    "an index that is no JSON": (lambda: tar_of({**whole(), "index.json": b"{"}), "no such document"),
    "an index that is no index": (lambda: tar_of({**whole(), "index.json": b"[]"}), "no index"),
    "a huge index": (lambda: tar_of({**whole(), "index.json": b" " * (5 << 20)}), "bytes; at most"),
    "JSON nested a million deep": (deep, "nested too deep"),
    "an index of no models": (lambda: tar_of({**whole(), "index.json": b'{"manifests":[]}'}), "no model"),
    "an index that names what is not there": (lambda: index(whole(), gone), "does not have"),
    "an index that names another size": (lambda: index(whole(), absurd_size), "names a document of"),
    "a digest of another algorithm": (lambda: index(whole(), other_algorithm), "takes sha256"),
    "a digest that is a path": (lambda: index(whole(), outside), "takes sha256"),
    "an index of a thousand entries": (lambda: index(whole(), crowd), "lists 1200 manifests"),
    "indexes in indexes": (lambda: nested(3), "index inside an index"),
    "a manifest with a path for a digest": (lambda: with_manifest(layer_outside), "a layer has the digest"),
    "a manifest with a size of exabytes": (lambda: with_manifest(layer_huge), "its manifest says"),
    "a manifest with a negative size": (lambda: with_manifest(layer_negative), "a layer has the size"),
    "a manifest of 10,000 layers": (lambda: with_manifest(many_layers), "layers"),
    "a manifest without weights": (lambda: with_manifest(no_weights), "no model"),
    "two models of one name": (lambda: tar_of(whole((NAME, MODEL), (NAME, tiny(b"other")))), "two models"),
    "a pin for other weights": (lambda: tar_of(whole(weights_digest="sha256:" + "1" * 64)), "pinned to the weights"),
    "a pin for another manifest": (lambda: tar_of(whole(manifest_digest="sha256:" + "1" * 64)), "its manifest is"),
    "a pin for another name": (lambda: tar_of(whole(served="qwen3:8b")), "is for qwen3:8b"),
    "a pin that names a path": (lambda: tar_of(whole(name=f"../../{OUTSIDE}", served="x:y")), "pin that llmctl"),
    "a pin with terminal codes": (lambda: tar_of(whole(engine="\x1b[2J")), "a text that llmctl did not write"),
    "a pin that sends repair to another host": (
        lambda: tar_of(whole(from_="https://evil.example/v2/team/tiny/manifests/q4_K_M")),
        "from evil.example, which is not its registry",
    ),
    "a pin that hides another host": (
        lambda: tar_of(whole(from_="HTTP://models.example:5000@evil.example/v2/team/tiny/manifests/q4_K_M")),
        "which is not its registry",
    ),
    "a pin without an end": (lambda: tar_of(whole(from_="x" * 5000)), "a text that llmctl did not write"),
    "a model in llmctl's own namespace": (lambda: tar_of(whole(("llmctl/mine:1", MODEL))), "may give"),
    "a starter with an alias for a name": (
        lambda: tar_of(whole(source="starter", served="llmctl/mine:1", registry=None)),
        "may give",
    ),
}


@pytest.mark.parametrize("through_pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_nothing_is_visible(there: Box, archive: Path, name: str, through_pipe: bool) -> None:
    make, words = HOSTILE[name]
    archive.write_bytes(make())
    before = {path for path in there.folder.parent.rglob("*") if OUTSIDE in path.name}
    if through_pipe:
        # The pipe has a name, which a command line can give.
        reading, writing = os.pipe()
        with archive.open("rb") as file:
            cat = subprocess.Popen(["cat"], stdin=file, stdout=writing, stderr=subprocess.DEVNULL)
        os.close(writing)
        done = there("import", f"/proc/self/fd/{reading}", "--yes", "--json")
        os.close(reading)
        cat.wait()
    else:
        done = there("import", str(archive), "--yes", "--json")
    assert done.code == ExitCode.NO, (done.out, done.err)
    assert set(done.json) == {"schema", "error"}
    if not through_pipe:
        # Through a pipe the same archive may be found wrong in another place.
        assert words in done.error["message"]
    assert list(there.store.names()) == []
    assert not there.lock_path.exists()
    # A blob that came before the fault may stay, if it is what its name says: the next import need not bring it again.
    for file in there.store.files():
        assert file.digest == digest_of(file.path.read_bytes())
    assert {path for path in there.folder.parent.rglob("*") if OUTSIDE in path.name} == before
    if there.store.scratch.exists():
        assert list(there.store.scratch.iterdir()) == []


def test_the_good_archive_of_these_tests_is_good(there: Box, archive: Path) -> None:
    """Or each refusal above could be for another reason."""
    archive.write_bytes(tar_of(whole()))
    assert there("import", str(archive)).code == 0
    archive.write_bytes(with_member("notes", first=False))
    assert there("import", str(archive)).code == 0
    archive.write_bytes(tar_of(bare()))
    assert there("import", str(archive)).code == 0
    archive.write_bytes(with_manifest(lambda document: None))
    assert there("import", str(archive), "--update").code == 0


def test_a_blob_that_is_nowhere_is_known_before_anything_is_copied(there: Box, archive: Path) -> None:
    archive.write_bytes(without(blob(MODEL.weights)))
    assert there("import", str(archive)).code == ExitCode.NO
    assert there.files() == {}


def test_an_alias_is_computed_never_taken(there: Box, archive: Path) -> None:
    archive.write_bytes(tar_of(whole(alias="llmctl/qwen3_-8b:0123456789ab")))
    done = there("import", str(archive), "--json")
    assert done.json["models"][0]["alias"] == pin_for(MODEL).alias
    assert {str(name) for name in there.store.names()} == {NAME, pin_for(MODEL).alias}


def test_a_made_models_pin_cannot_take_another_models_alias(there: Box, archive: Path) -> None:
    """Its manifest digest is only a claim, and the alias follows from it."""
    mine = tiny(b"mine")
    pin = pin_for(mine)
    fill(there.store, mine, pin.alias)
    archive.write_bytes(tar_of(whole(source="file", registry=None, manifest_digest=mine.digest)))
    done = there("import", str(archive), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "alias_taken")
    assert there.store.manifest_path(_ref(pin.alias)).read_bytes() == mine.manifest


def _ref(name: str) -> Any:
    from llmctl.core.model import ModelRef

    return ModelRef.parse(name)


def test_a_folder_with_links_gives_nothing_that_does_not_hash(there: Box, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    for name, content in whole().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    weights = folder / blob(MODEL.weights)
    weights.unlink()
    weights.symlink_to("/etc/passwd")
    assert there("import", str(folder), "--yes").code == ExitCode.NO
    weights.unlink()
    os.mkfifo(weights)
    assert there("import", str(folder), "--yes").code == ExitCode.NO
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")
    assert there("import", str(folder), "--yes").code != 0
    assert list(there.store.names()) == []


def test_memory_stays_flat_whatever_the_size(there: Box, archive: Path) -> None:
    """400 MB of weights, and less than that to hold them in."""
    model = tiny(bytes(400_000_000))
    archive.write_bytes(tar_of(whole((NAME, model))))
    limit = 300 << 20
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", "import", str(archive), "--yes"],
        env=there.settings,
        capture_output=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    assert there.lock.pin(NAME) is not None
