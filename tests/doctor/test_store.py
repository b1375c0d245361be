"""The model store: really damaged, full, forbidden, and beside another one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.checks.examine import examine, shown
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.finding import Finding
from llmctl.core.checks.store import CHECKS
from llmctl.env import Env
from llmctl.library import lock_file
from llmctl.system import mounts
from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.faults.conftest import UNPRIVILEGED
from tests.parts.tmpfs import mounted

pytestmark = pytest.mark.real("ollama", "model")

MIB = 1 << 20


class Stored:
    """The store of a patient, as what is wrong with it is done."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.path = Path(patient.cli.environ["OLLAMA_MODELS"])
        (self.pin,) = lock_file.read(Path(patient.profile).with_suffix(".lock")).models

    @property
    def manifest(self) -> Path:
        """The alias's."""
        name, _, tag = self.pin.alias.partition(":")
        return self.path / "manifests" / "registry.ollama.ai" / name / tag

    def blob(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "-")

    def own(self, path: Path) -> Path:
        """Its bytes are the test's own: until then they are shared with other tests."""
        copy = path.with_name("copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
        return path

    def finding(self, check: str, *more: str) -> dict[str, Any]:
        return self.patient.finding(check, "--profile", self.patient.profile, *more)

    def ids(self) -> list[str]:
        report = self.patient.report("store", "--profile", self.patient.profile)
        assert not report["unknown"], report["unknown"]
        return ids(report)


@pytest.fixture
def stored(patient: Patient) -> Stored:
    return Stored(patient)


def test_a_sound_store_has_nothing_to_tell(stored: Stored) -> None:
    assert stored.ids() == []


@provokes("store.missing")
def test_blobs_and_names_that_are_gone(stored: Stored) -> None:
    weights = stored.blob(stored.pin.weights_digest)
    kept = weights.rename(weights.with_name("kept"))
    found = stored.finding("store.missing")
    assert found["subject"] == "starter"
    assert found["evidence"] == [str(weights)]
    assert found["remedy"]["commands"] == ["llmctl repair starter"]
    kept.rename(weights)
    assert stored.ids() == []

    stored.own(weights)
    os.truncate(weights, 1000)
    assert "1,000 of 253,113,024 bytes" in str(stored.finding("store.missing")["observed"])
    mended = stored.patient("repair", "starter", "--profile", stored.patient.profile, "--yes")
    assert mended.code == 0, mended.err
    assert stored.ids() == []

    stored.manifest.unlink()
    found = stored.finding("store.missing")
    assert stored.pin.alias in found["observed"]
    assert found["remedy"] == {**found["remedy"], "commands": ["llmctl up"], "safe": True}
    stored.patient.up()
    assert stored.ids() == []


@provokes("store.corrupt-manifest")
def test_a_manifest_that_is_no_manifest(stored: Stored) -> None:
    stored.own(stored.manifest).write_text('{"layers": ')
    found = stored.finding("store.corrupt-manifest")
    assert (found["severity"], found["subject"]) == ("error", "starter")
    assert found["evidence"] == [str(stored.manifest)]
    assert stored.ids() == ["store.corrupt-manifest"]
    other = stored.path / "manifests/registry.ollama.ai/library/other/latest"
    other.parent.mkdir(parents=True)
    other.write_text("not json")
    report = stored.patient.report("store", "--profile", stored.patient.profile)
    assert [(each["severity"], each["subject"]) for each in report["findings"]] == [
        ("error", "starter"),
        ("warning", "other:latest"),
    ]
    other.unlink()
    assert found["remedy"]["commands"] == ["llmctl up"]
    stored.patient.up()
    assert stored.ids() == []


@provokes("store.drift")
def test_an_alias_of_other_weights(stored: Stored) -> None:
    document = json.loads(stored.manifest.read_text())
    other = stored.path / "blobs" / f"sha256-{'ab' * 32}"
    other.write_bytes(b"GGUF")
    weights = next(layer for layer in document["layers"] if layer["mediaType"].endswith(".model"))
    weights |= {"digest": f"sha256:{'ab' * 32}", "size": 4}
    stored.own(stored.manifest).write_text(json.dumps(document))
    found = stored.finding("store.drift")
    assert found["severity"] == "error"
    assert "abababababab" in str(found["observed"])
    assert stored.pin.weights_digest[7:19] in str(found["observed"])
    assert stored.ids() == ["store.drift"]
    assert found["remedy"]["commands"] == ["llmctl up"]
    stored.patient.up()
    assert stored.ids() == []


@provokes("store.unreadable")
def test_the_disk_of_the_store_is_not_mounted(stored: Stored) -> None:
    stored.patient.up()
    assert stored.patient("down").code == 0
    away = stored.path.rename(stored.path.with_name("away"))
    found = stored.finding("store.unreadable")
    assert "no such folder" in str(found["observed"])
    assert stored.ids() == ["store.unreadable"]
    away.rename(stored.path)
    assert stored.ids() == []


def as_nobody_special(patient: Patient, *arguments: str) -> list[dict[str, Any]]:
    """The findings of doctor as a user for whom modes count."""
    done = subprocess.run(
        [*UNPRIVILEGED, *patient.cli.command("doctor", "--json", "--profile", patient.profile, *arguments)],
        env={**os.environ, **patient.cli.environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return findings


@provokes("store.permissions")
def test_a_folder_above_the_store_lets_nobody_through(stored: Stored) -> None:
    """As with a home of mode 0700 and a server that is another user's: who starts the server is barred."""
    above = stored.path.parent / "above"
    above.mkdir()
    stored.path.rename(above / "models")
    stored.patient.cli.environ["OLLAMA_MODELS"] = str(above / "models")
    above.chmod(0o600)
    try:
        (found, *_) = as_nobody_special(stored.patient, "store")
        assert (found["id"], found["subject"]) == ("store.permissions", str(above))
        assert "0600" in found["observed"]
        above.chmod(0o755)
        (above / "models" / "blobs").chmod(0o555)
        (found, *_) = as_nobody_special(stored.patient, "store.permissions")
        assert "may not write to" in found["observed"]
    finally:
        above.chmod(0o755)
        (above / "models" / "blobs").chmod(0o755)
    assert as_nobody_special(stored.patient, "store") == []


@pytest.mark.real("tmpfs")
@provokes("store.permissions")
def test_a_file_system_that_takes_no_writes(stored: Stored, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 4 * MIB) as disk:
        stored.patient.cli.environ["OLLAMA_MODELS"] = str(disk / "models")
        (disk / "models").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        found = stored.finding("store.permissions")
        assert f"{disk} is mounted read-only" in str(found["observed"])


@pytest.mark.real("tmpfs")
@provokes("store.space")
def test_a_disk_without_room(stored: Stored, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(400 * MIB)
    target = disk / "models"
    shutil.copytree(stored.path, target)
    stored.patient.cli.environ["OLLAMA_MODELS"] = str(target)
    assert stored.ids() == []
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 150 * MIB)
    assert stored.finding("store.space")["severity"] == "warning"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 157 * MIB)
    assert stored.finding("store.space")["severity"] == "error"
    filler.unlink()

    # What is missing must fit too; what a sparse partial file has on the disk is not needed again.
    stored.path = target
    weights = stored.blob(stored.pin.weights_digest)
    size = weights.stat().st_size
    weights.unlink()
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100 * MIB)
    found = stored.finding("store.space")
    assert "241 MiB for what is pinned" in str(found["expected"])
    partial = weights.with_name(f"{weights.name}-partial")
    with partial.open("wb") as file:
        file.truncate(size)
        os.posix_fallocate(file.fileno(), 0, 30 * MIB)
    assert "211 MiB for what is pinned" in str(stored.finding("store.space")["expected"])
    filler.unlink()
    assert stored.ids() == ["store.missing"]


@provokes("store.leftovers")
def test_downloads_that_broke_off_and_blobs_of_no_model(stored: Stored) -> None:
    digest = "cd" * 32
    partial = stored.path / "blobs" / f"sha256-{digest}-partial"
    with partial.open("wb") as file:
        file.truncate(8 << 30)
    os.utime(partial, (0, 0))
    assert stored.ids() == [], "a sparse file takes no room"
    loose = stored.path / "blobs" / f"sha256-{'ef' * 32}"
    with loose.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 30)
    assert stored.ids() == [], "a pull may have it under way"
    os.utime(loose, (0, 0))
    found = stored.finding("store.leftovers")
    assert found["severity"] == "info"
    assert "1.0 GiB in 1 blobs" in str(found["observed"])


@provokes("store.two-stores")
def test_the_models_are_in_the_other_store(stored: Stored, home: Path, tmp_path: Path) -> None:
    usual = home / ".ollama" / "models"
    shutil.copytree(stored.path, usual)
    assert stored.ids() == [], "a copy lacks nothing"
    empty = tmp_path / "empty"
    empty.mkdir()
    stored.patient.cli.environ["OLLAMA_MODELS"] = str(empty)
    found = stored.finding("store.two-stores")
    assert found["severity"] == "warning"
    assert str(usual) in str(found["observed"])
    assert "starter" in str(found["observed"])


@provokes("store.damaged")
def test_a_blob_of_other_bytes(stored: Stored) -> None:
    weights = stored.own(stored.blob(stored.pin.weights_digest))
    with weights.open("r+b") as file:
        file.seek(100_000_000)
        file.write(b"other bytes")
    assert stored.ids() == []
    found = stored.finding("store.damaged", "--deep")
    assert found["subject"] == "starter"
    assert str(weights) in found["observed"]


MOUNTINFO = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:50 / {point} rw,relatime - {kind} {source} rw
"""


def looked(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Finding]]:
    """The store's findings of this very process, which sees what the test put in."""
    from llmctl.commands.doctor import given
    from llmctl.workflows.gather import gather

    env = Env({**os.environ, **patient.cli.environ})
    facts = gather(given(env, patient.profile))
    outcomes = examine(CHECKS, Facts({**facts.areas, "deep": DeepFacts()}, facts.missing))
    return [(outcome.check.id, finding) for outcome, finding in shown(outcomes)]


@provokes("store.network-disk", injected="no server of files is to be had here: the kernel's list of mounts is")
@pytest.mark.parametrize(
    ("kind", "source"), [("nfs4", "nas:/volume1/models"), ("fuse.sshfs", "me@nas:models"), ("cifs", "//nas/models")]
)
def test_a_store_behind_the_network(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str
) -> None:
    listed = tmp_path / "mountinfo"
    listed.write_text(MOUNTINFO.format(point=stored.path, kind=kind, source=source))
    monkeypatch.setattr(mounts, "MOUNTS", listed)
    ((check, found),) = looked(stored.patient, monkeypatch)
    assert check == "store.network-disk"
    assert source in found.observed
    listed.write_text(MOUNTINFO.format(point=f"{stored.path}-beside", kind=kind, source=source))
    assert looked(stored.patient, monkeypatch) == []


@provokes("store.spinning-disk", injected="no disk here turns: the kernel's word of it is put in, and of large weights")
def test_large_weights_on_a_disk_that_turns(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, disk in (("8:1", "sda/sda1"), ("254:0", "vda")):
        folder = tmp_path / "devices" / disk
        folder.mkdir(parents=True)
        queue = tmp_path / "devices" / disk.partition("/")[0] / "queue"
        queue.mkdir()
        (queue / "rotational").write_text("1\n")
        (tmp_path / name).symlink_to(folder)
    listed = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTS", listed)
    monkeypatch.setattr(mounts, "DEVICES", tmp_path)
    listed.write_text("22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
    assert looked(stored.patient, monkeypatch) == [], "1.7 s of reading are no matter"
    monkeypatch.setattr("llmctl.core.checks.store_disk.SPINNING_BYTES_PER_SECOND", 1_000_000)
    ((check, found),) = looked(stored.patient, monkeypatch)
    assert check == "store.spinning-disk"
    assert "253 s" in found.observed
    listed.write_text("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    assert looked(stored.patient, monkeypatch) == []
