"""A registry that refuses, lies, or moves what a name stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults import fault
from tests.faults.conftest import MIB, Box
from tests.registry_server import BlobFault, Fault, digest_of

pytestmark = pytest.mark.real("ollama")


@fault(
    what="It wants a login (401)",
    how="401 for the manifest, without a place to get a token",
    happens="exit 1, `registry_login`",
    left="nothing",
    answer="login",
    code=1,
    said="wants a login",
)
@fault(
    what="It sends its clients to another host for a token",
    how="401 whose realm is on another host",
    happens="exit 1, `registry_login`; the other host is never asked",
    left="nothing",
    answer="elsewhere",
    code=1,
    said="wants a login",
)
@fault(
    what="It forbids (403)",
    how="403 for the manifest",
    happens="exit 1, `registry_login`",
    left="nothing",
    answer="forbidden",
    code=1,
    said="wants a login",
)
@fault(
    what="It has no such model (404)",
    how="404 for the manifest",
    happens="exit 4, `model_not_found`",
    left="nothing",
    answer="missing",
    code=4,
    said="has no model",
)
@fault(
    what="The engine is too old for the model (412)",
    how="412 for the manifest",
    happens="exit 1, `engine_too_old`, and the command that lists newer ones",
    left="nothing",
    answer="too_old",
    code=1,
    said="llmctl engine list",
)
@fault(
    what="It limits requests (429)",
    how="429 with `Retry-After: 17`",
    happens="exit 1, `registry_busy`, with the seconds to wait; no retry of its own",
    left="nothing",
    answer="busy",
    code=1,
    said="in 17 seconds",
)
@fault(
    what="It fails (500)",
    how="500 for the manifest",
    happens="exit 1, `registry_unreachable`, with the status",
    left="nothing",
    answer="failing",
    code=1,
    said="answered 500",
)
@fault(
    what="It is down for maintenance (503)",
    how="503 for the manifest",
    happens="exit 1, `registry_unreachable`, with the status",
    left="nothing",
    answer="unavailable",
    code=1,
    said="answered 503",
)
@fault(
    what="A login page answers in its place",
    how="200 with HTML for the manifest",
    happens="exit 1; says that a web page came",
    left="nothing",
    answer="page",
    code=1,
    said="web page",
)
@fault(
    what="The manifest is no JSON",
    how="200 with a sentence",
    happens="exit 1; says who sent it",
    left="nothing",
    answer="text",
    code=1,
    said="sent no manifest",
)
@fault(
    what="The manifest lacks its layers",
    how="200 with half of a manifest's keys",
    happens="exit 1; says what is missing",
    left="nothing",
    answer="broken",
    code=1,
    said="no list of layers",
)
@fault(
    what="The manifest is huge",
    how="5 MiB of spaces",
    happens="exit 1, `registry_answer`; 4 MiB are read at most",
    left="nothing",
    answer="huge",
    code=1,
    said="sent more than",
)
@fault(
    what="The manifest ends in the middle",
    how="half of the announced bytes, then the end",
    happens="exit 1, `registry_unreachable`",
    left="nothing",
    answer="truncated",
    code=1,
    said="cannot get",
)
@fault(
    what="It redirects in a circle",
    how="302 to the same address",
    happens="exit 1 after five redirects",
    left="nothing",
    answer="loop",
    code=1,
    said="redirects more than",
)
def test_no_answer(box: Box, answer: Fault, code: int, said: str) -> None:
    model = box.publish()
    box.registry.fault = answer
    done = box("pull", model.name)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err
    assert not [line for line in box.registry.asked if "/blobs/" in line or "/token" in line]
    box.nothing_happened()
    box.registry.fault = None
    assert box("pull", model.name).code == 0
    box.sound()


@fault(
    what="It wants a token that it gives to anyone",
    how="401 with a realm of its own",
    happens="exit 0: llmctl and the engine each get a token, and ask again with it",
    left="the model, pinned",
)
def test_token(box: Box) -> None:
    model = box.publish()
    box.registry.fault = "token"
    done = box("pull", model.name)
    assert done.code == 0, done.err
    assert len([line for line in box.registry.asked if line.startswith("GET /token")]) >= 2
    assert box.lock.models[0].manifest_digest == model.manifest
    box.registry.fault = None
    box.sound()


@fault(
    what="A layer's digest names a path out of the store",
    how="`sha256:../../../../etc/passwd` in the manifest",
    happens="exit 1 before anything is downloaded",
    left="nothing; no file outside the store",
    layer={"digest": "sha256:../../../../etc/passwd"},
    code=1,
    said="has the digest",
)
@fault(
    what="A layer's digest is another kind",
    how="`sha512:` in the manifest",
    happens="exit 1 before anything is downloaded",
    left="nothing",
    layer={"digest": "sha512:" + "0" * 128},
    code=1,
    said="has the digest",
)
@fault(
    what="A layer of negative size",
    how="`size: -1` in the manifest",
    happens="exit 1 before anything is downloaded",
    left="nothing",
    layer={"size": -1},
    code=1,
    said="has the size",
)
@fault(
    what="A layer of enormous size",
    how="`size` of 4 PiB in the manifest",
    happens="exit 1, `disk_full`, with both numbers, before anything is downloaded",
    left="nothing",
    layer={"size": 1 << 52},
    code=1,
    said="MiB free",
)
def test_manifest_that_lies(box: Box, layer: dict[str, Any], code: int, said: str) -> None:
    model = box.publish()
    manifest = json.loads(box.registry.manifests["m/t"])
    manifest["layers"][0] |= layer
    box.registry.manifests["m/t"] = json.dumps(manifest).encode()
    done = box("pull", model.name, "--yes")
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err
    assert box.lock.models == ()
    box.sound()


@fault(
    what="A layer of size 0 that is not empty",
    how="`size: 0` in the manifest, weights in the blob",
    happens="exit 1; nothing is pinned whose length the manifest denies",
    left="the weights, which hash; no pin",
    layer={"size": 0},
)
@fault(
    what="A layer's size is off by one",
    how="one byte more in the manifest than in the blob",
    happens="exit 1; nothing is pinned whose length the manifest denies",
    left="the weights, which hash; no pin",
    layer={"size": 4175},
)
def test_manifest_that_lies_about_a_size(box: Box, layer: dict[str, Any]) -> None:
    model = box.publish()
    manifest = json.loads(box.registry.manifests["m/t"])
    manifest["layers"][0] |= layer
    box.registry.manifests["m/t"] = json.dumps(manifest).encode()
    done = box("pull", model.name, "--yes")
    assert (done.code, done.out) == (1, ""), done.err
    assert model.weights[7:19] in done.err
    assert box.lock.models == ()
    box.sound()


@fault(
    what="The manifest is nested without end",
    how="200 with 200,000 brackets",
    happens="exit 1; says who sent it",
    left="nothing",
)
def test_manifest_without_end(box: Box) -> None:
    model = box.publish()
    box.registry.manifests["m/t"] = b"[" * 200_000
    done = box("pull", model.name)
    assert done.code == 1, done.err
    assert "sent no manifest" in done.err
    box.nothing_happened()


@fault(
    what="The manifest is not the one that is announced",
    how="a `Docker-Content-Digest` of other bytes",
    happens="exit 1; both digests are named",
    left="nothing",
)
def test_announced_as_another(box: Box) -> None:
    model = box.publish()
    box.registry.announced = "sha256:" + "0" * 64
    done = box("pull", model.name)
    assert done.code == 1
    assert "damaged manifest" in done.err
    assert model.manifest in done.err
    box.nothing_happened()


@fault(
    what="The weights' blob is missing",
    how="404 for every blob",
    happens="exit 4; says that the registry has no such model",
    left="nothing",
    answer="missing",
    code=4,
    partial=False,
)
@fault(
    what="Every blob fails (500)",
    how="500 for every blob",
    happens="exit 1, with the engine's words and the command that goes on",
    left="nothing",
    answer="failing",
    code=1,
    partial=False,
)
@fault(
    what="A login page answers in place of a blob",
    how="200 with HTML for every blob",
    happens="exit 1, with the engine's words",
    left="an empty `-partial` of Ollama's",
    answer="page",
    code=1,
    partial=True,
)
@fault(
    what="It names no Location for a blob",
    how="200 without Location, as docker-registry does on a disk",
    happens="exit 1, with the engine's words",
    left="an empty `-partial` of Ollama's",
    answer="nowhere",
    code=1,
    partial=True,
)
@fault(
    what="A blob is short by one byte",
    how="length and bytes one less than the manifest says",
    happens="exit 1, digest mismatch",
    left="nothing: Ollama deletes what does not hash",
    answer="short",
    code=1,
    partial=False,
)
@fault(
    what="A blob is long by one byte",
    how="length and bytes one more than the manifest says",
    happens="exit 1, digest mismatch",
    left="nothing: Ollama deletes what does not hash",
    answer="long",
    code=1,
    partial=False,
)
@fault(
    what="A blob of the right length has other bytes",
    how="one bit flipped in the middle of the answer",
    happens="exit 1, digest mismatch",
    left="nothing: Ollama deletes what does not hash",
    answer="flipped",
    code=1,
    partial=False,
)
def test_blob_that_is_none(box: Box, answer: BlobFault, code: int, partial: bool) -> None:
    model = box.publish()
    box.registry.blob_fault, box.registry.spoiled = answer, model.weights
    done = box("pull", model.name)
    assert (done.code, done.out) == (code, ""), done.err
    assert "hint: " in done.err
    box.nothing_happened()
    left = list((box.store / "blobs").glob(f"{box.blob(model.weights).name}*"))
    assert any(path.name.endswith("-partial") for path in left) is partial
    assert sum(path.stat().st_blocks for path in left if path.name.endswith("-partial")) == 0
    box.registry.blob_fault = None
    assert box("pull", model.name).code == 0
    assert box.lock.models[0].weights_digest == model.weights
    box.sound()


@fault(
    what="Several blobs have other bytes",
    how="one bit flipped in each of the model's blobs, once",
    happens="exit 1, digest mismatch. Ollama deletes the first and keeps the others, which it would take as they lie: "
    "the next pull hashes what was there before, is exit 1, `damaged_blob`, and gives the command that mends it",
    left="the bad blobs that Ollama kept; no pin",
)
def test_several_bad_blobs(box: Box) -> None:
    model = box.publish()
    box.registry.blob_fault = "flipped"
    assert box("pull", model.name).code == 1
    box.registry.blob_fault = None
    left = box.bad_blobs()
    assert left
    done = box("pull", model.name)
    assert done.code == 1, done.err
    assert all(digest in done.err for digest in left)
    assert box.lock.models == ()
    assert f"hint: rm -r {box.store}/blobs/sha256-" in done.err
    for digest in left:
        box.blob(digest).unlink()
    assert box("pull", model.name).code == 0
    box.sound()


@fault(
    what="It knows no ranges",
    how="200 with the whole blob for every range",
    happens="exit 0: a file below 100 MB is asked for as a whole",
    left="the model, pinned",
)
def test_no_ranges(box: Box) -> None:
    model = box.publish(size_bytes=MIB)
    box.registry.blob_fault = "whole"
    assert box("pull", model.name).code == 0
    assert box.lock.models[0].weights_digest == model.weights
    box.sound()


@fault(
    what="The tag moves between the question and the pull",
    how="the registry has another manifest at the second question",
    happens="exit 5, `drift`, with both digests; nothing is pinned",
    left="the plain name, which Ollama pulled; the next pull pins what the registry has then",
)
def test_tag_moves_meanwhile(box: Box) -> None:
    first = box.publish(seed="one")
    asked = box.registry.manifests["m/t"]
    second = box.publish(seed="two")
    box.registry.moves["m/t"], box.registry.manifests["m/t"] = box.registry.manifests["m/t"], asked
    done = box("pull", first.name)
    assert done.code == 5
    assert first.manifest[7:19] in done.err
    assert second.manifest[7:19] in done.err
    assert box.lock.models == ()
    assert box("pull", first.name).code == 0
    assert box.lock.models[0].manifest_digest == second.manifest
    box.sound()


@fault(
    what="The tag moved to other weights of the same size",
    how="other bytes and another digest under the same name; the pinned ones are gone from the store",
    happens="exit 5, `drift`, before anything is downloaded; with `--update` they are taken",
    left="the lock as it was",
    template="{{ .Prompt }}",
    seed="two",
)
@fault(
    what="The tag moved to another template of the same weights",
    how="another template layer under the same name",
    happens="exit 5, `drift`, before anything is downloaded; with `--update` it is taken",
    left="the lock as it was",
    template="now {{ .Prompt }}",
    seed="one",
)
def test_tag_moved(box: Box, template: str, seed: str) -> None:
    first = box.pulled(seed="one")
    pin = box.lock.models[0]
    second = box.publish(seed=seed, template=template)
    assert (first.size_bytes, first.manifest != second.manifest) == (second.size_bytes, True)
    for name in box.tags():
        box.server.request("DELETE", "/api/delete", {"model": name})
    box.registry.asked.clear()
    done = box("pull", first.name)
    assert done.code == 5, done.err
    assert first.manifest[7:19] in done.err + done.out
    assert second.manifest[7:19] in done.err + done.out
    assert not [line for line in box.registry.asked if "/blobs/" in line]
    assert box.lock.models == (pin,)
    assert box.tags() == {}
    assert box("pull", first.name, "--update").code == 0
    assert box.lock.models[0].manifest_digest == second.manifest
    box.sound()


@fault(
    what="A foreign `ollama pull` follows a moved tag",
    how="the tag moves, and somebody pulls it past llmctl",
    happens="the pinned weights stay, and are what is served; `list` says that the plain name moved",
    left="both models",
)
def test_foreign_pull_of_a_moved_tag(box: Box) -> None:
    first = box.pulled(seed="one")
    pin = box.lock.models[0]
    second = box.publish(seed="two")
    box.server.post("/api/pull", {"model": first.name, "insecure": True})
    assert box.tags() == {first.name: second.manifest, pin.alias: first.manifest}
    box.sound()
    listed = {model["name"]: model for model in box("list", "--json").json["models"]}
    found = listed[first.name]
    assert (found["pin_state"], found["plain"], f"sha256:{found['plain_digest']}") == (
        "pinned",
        "moved",
        second.manifest,
    )
    assert digest_of(box.blob(first.weights).read_bytes()) == first.weights
