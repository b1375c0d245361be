"""What a path lies on, from the kernel's own list."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.system import mounts

LINES = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw,relatime - nfs4 nas:/a\\040b rw,vers=4.2
31 30 8:17 / /data/ssd\\040one ro,relatime master:3 - xfs /dev/sdb1 rw
32 22 0:41 / /data rw,relatime - tmpfs tmpfs rw
a line of nonsense
"""


@pytest.fixture(autouse=True)
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(LINES)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")


@pytest.mark.parametrize(
    ("path", "kind", "point"),
    [
        ("/", "ext4", "/"),
        ("/home/ann", "ext4", "/"),
        ("/database", "ext4", "/"),
        ("/data/models", "tmpfs", "/data"),
        ("/data/ssd one/models", "xfs", "/data/ssd one"),
    ],
)
def test_the_nearest_mount_counts_and_of_two_the_later(path: str, kind: str, point: str) -> None:
    found = mounts.of(Path(path))
    assert found is not None
    assert (found.kind, found.point) == (kind, point)


def test_what_is_mounted_read_only() -> None:
    one = mounts.of(Path("/data/ssd one"))
    assert one is not None
    assert one.read_only
    root = mounts.of(Path("/"))
    assert root is not None
    assert not root.read_only


def test_nothing_is_known_without_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert mounts.of(Path("/")) is None


@pytest.mark.parametrize(
    ("disk", "said", "model", "turns"),
    [
        ("sda", "1", "ST4000DM004", True),
        ("sda", "0", "Samsung SSD 870", False),
        ("sda", "1", "QEMU HARDDISK", None),
        ("vda", "1", "", None),
        ("nvme0n1", "0", "", False),
    ],
)
def test_disks_that_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str, said: str, model: str, turns: bool | None
) -> None:
    folder = tmp_path / "block" / disk
    (folder / "queue").mkdir(parents=True)
    (folder / "queue" / "rotational").write_text(f"{said}\n")
    if model:
        (folder / "device").mkdir()
        (folder / "device" / "vendor").write_text("ATA\n")
        (folder / "device" / "model").write_text(f"{model}\n")
    (folder / f"{disk}1").mkdir()
    (tmp_path / "8:1").symlink_to(folder / f"{disk}1")
    monkeypatch.setattr(mounts, "DEVICES", tmp_path)
    assert mounts.rotational("8:1") is turns
    assert mounts.rotational("0:40") is None
