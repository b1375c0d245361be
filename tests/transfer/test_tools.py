"""The archive in other people's hands: skopeo, oras and a real registry."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from llmctl.core.image_layout import PIN_TYPE
from llmctl.core.manifest import MEDIA_TYPE
from llmctl.core.model import ModelRef
from llmctl.system import registry as asked
from tests.parts import oci_tools
from tests.parts.registry import RealRegistry
from tests.transfer.conftest import NAME, Box, members_of, tar_of, tiny

REF = "models.example-5000-team-tiny-q4_K_M"


@pytest.fixture
def two(here: Box, archive: Path) -> Path:
    """An archive of two models: a reference must choose between them."""
    here.pin(tiny())
    here.pin(tiny(b"second"), "second:q4_K_M")
    done = here("export", NAME, "second:q4_K_M", "-o", str(archive), "--json")
    assert done.code == 0, done.err
    assert [model["ref"] for model in done.json["models"]] == [REF, "second-q4_K_M"]
    return archive


def digest_in(registry: RealRegistry, model: str) -> str:
    """The digest under a name, whatever kind of manifest it is."""
    name, _, tag = model.partition(":")
    connection = http.client.HTTPConnection(registry.host, timeout=30)
    try:
        accept = f"{MEDIA_TYPE}, application/vnd.oci.image.manifest.v1+json"
        connection.request("HEAD", f"/v2/library/{name}/manifests/{tag}", headers={"Accept": accept})
        return connection.getresponse().headers["Docker-Content-Digest"]
    finally:
        connection.close()


@pytest.mark.real("oras", "registry")
def test_oras_brings_the_pinned_manifest_into_a_registry_and_back(
    two: Path, there: Box, real_registry: RealRegistry, tmp_path: Path
) -> None:
    target = real_registry.name("tiny:1")
    source = f"{two}:{REF}"
    done = oci_tools.oras("cp", "-r", "--from-oci-layout", source, "--to-plain-http", target, home=tmp_path)
    assert done.returncode == 0, done.stderr
    # What `llmctl pull` asks before it lets the engine pull.
    assert asked.manifest(ModelRef.parse(target)).digest == tiny().digest
    found = oci_tools.oras("discover", "--plain-http", "--format", "json", target, home=tmp_path)
    assert PIN_TYPE in found.stdout

    folder = tmp_path / "layout"
    back = ["cp", "-r", "--from-plain-http", target, "--to-oci-layout", f"{folder}:whatever"]
    assert oci_tools.oras(*back, home=tmp_path).returncode == 0
    imported = there("import", str(folder), "--json")
    assert imported.code == 0, imported.err
    # The pin came along as a referrer of the manifest.
    assert [(model["name"], model["pinned"]) for model in imported.json["models"]] == [(NAME, True)]


@pytest.mark.real("oras", "registry")
def test_a_manifest_alone_from_a_registry_is_pinned_under_the_name_given(
    two: Path, there: Box, real_registry: RealRegistry, tmp_path: Path
) -> None:
    target = real_registry.name("tiny:1")
    oci_tools.oras("cp", "--from-oci-layout", f"{two}:{REF}", "--to-plain-http", target, home=tmp_path)
    folder = tmp_path / "layout"
    oci_tools.oras("cp", "--from-plain-http", target, "--to-oci-layout", f"{folder}:1", home=tmp_path)
    imported = there("import", str(folder), "--name", target, "--json")
    assert imported.code == 0, imported.err
    pin = there.lock.pin(target)
    assert pin is not None
    assert (pin.manifest_digest, pin.registry) == (tiny().digest, real_registry.host)


@pytest.mark.real("skopeo", "registry")
def test_skopeo_carries_a_model_with_its_pin_through_a_registry(
    two: Path, there: Box, real_registry: RealRegistry, tmp_path: Path
) -> None:
    """As the artifact: skopeo refuses a docker manifest with layers that it does not know."""
    target = real_registry.name("tiny:1")
    to = ["--dest-tls-verify=false", f"oci-archive:{two}:{REF}.oci", f"docker://{target}"]
    done = oci_tools.skopeo("copy", *to, home=tmp_path)
    assert done.returncode == 0, done.stderr
    index = json.loads(members_of(two)["index.json"])
    [artifact] = [
        entry["digest"]
        for entry in index["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] == f"{REF}.oci"
    ]
    assert digest_in(real_registry, "tiny:1") == artifact

    folder, again = tmp_path / "layout", tmp_path / "again.tar"
    for place in (f"oci:{folder}:x", f"oci-archive:{again}:x"):
        done = oci_tools.skopeo("copy", "--src-tls-verify=false", f"docker://{target}", place, home=tmp_path)
        assert done.returncode == 0, done.stderr
    imported = there("import", str(folder), "--json")
    assert imported.code == 0, imported.err
    assert [(model["name"], model["manifest_digest"]) for model in imported.json["models"]] == [(NAME, tiny().digest)]
    # skopeo's own archive has the weights before the index.
    second = there("import", str(again), "--json")
    assert [model["change"] for model in second.json["models"]] == ["same"]


@pytest.mark.real("skopeo")
def test_skopeo_says_why_it_cannot_carry_the_plain_manifest(two: Path, tmp_path: Path) -> None:
    """The reason for the artifact. When this fails, skopeo has learnt it and docs/moving.md may say so."""
    done = oci_tools.skopeo("copy", f"oci-archive:{two}:{REF}", f"dir:{tmp_path / 'd'}", home=tmp_path)
    assert done.returncode != 0


@pytest.mark.real("skopeo")
def test_skopeo_checks_the_archive_as_it_reads_it(two: Path, tmp_path: Path) -> None:
    members = members_of(two)
    weights = max(members, key=lambda name: len(members[name]))
    spoiled = tmp_path / "spoiled.tar"
    spoiled.write_bytes(tar_of({**members, weights: members[weights][:-1] + b"!"}))
    for archive, fine in ((two, True), (spoiled, False)):
        target = f"dir:{tmp_path / archive.stem}"
        codes = [
            oci_tools.skopeo("copy", f"oci-archive:{archive}:{ref}.oci", target, home=tmp_path).returncode == 0
            for ref in (REF, "second-q4_K_M")
        ]
        assert all(codes) is fine
