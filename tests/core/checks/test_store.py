"""What is said of a store, at the edges of each rule."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Literal

import pytest

from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.store import Denied, OtherStoreFacts, StoreFacts, Trouble
from llmctl.core.checks.store import CHECKS

MIB, GIB = 1 << 20, 1 << 30
SOUND = StoreFacts(
    "/models",
    there=True,
    readable=True,
    user="ollama",
    own=True,
    used=True,
    models=1,
    free_bytes=100 * GIB,
    total_bytes=500 * GIB,
    pinned_bytes=20 * GIB,
    file_system="ext4",
    mounted_at="/",
    source="/dev/sda1",
    rotational=False,
)


def outcome(check: str, store: StoreFacts) -> Outcome:
    (found,) = examine([each for each in CHECKS if each.id == check], Facts({"store": store}))
    return found


def said(check: str, store: StoreFacts) -> list[str]:
    found = outcome(check, store)
    return [found.severity(finding) for finding in found.findings]


def test_a_sound_store() -> None:
    shallow = [check for check in CHECKS if not check.deep]
    assert {each.state for each in examine(shallow, Facts({"store": SOUND}))} == {"ok"}


@pytest.mark.parametrize(
    ("free", "total", "needed", "severity"),
    [
        (1 * GIB, 500 * GIB, 0, []),
        (1 * GIB - 1, 500 * GIB, 0, ["warning"]),
        (64 * MIB - 1, 500 * GIB, 0, ["error"]),
        # 5 % of a small disk is what stays free of it.
        (50 * MIB, 1000 * MIB, 0, []),
        (49 * MIB, 1000 * MIB, 0, ["warning"]),
        (9 * MIB, 1000 * MIB, 0, ["error"]),
        # What is pinned must come too, with some room beside it.
        (10 * GIB + 64 * MIB, 500 * GIB, 10 * GIB, []),
        (10 * GIB, 500 * GIB, 10 * GIB, ["error"]),
    ],
)
def test_room(free: int, total: int, needed: int, severity: list[str]) -> None:
    assert said("store.space", replace(SOUND, free_bytes=free, total_bytes=total, needed_bytes=needed)) == severity


def test_room_that_nobody_tells_is_unknown() -> None:
    assert outcome("store.space", replace(SOUND, free_bytes=None)).state == "unknown"


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        *(
            (kind, ["warning"])
            for kind in ("nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "fuse.rclone", "fuse.gvfsd-fuse")
        ),
        *((kind, []) for kind in ("ext4", "xfs", "btrfs", "zfs", "overlay", "fuse.mergerfs", "fuseblk", "tmpfs")),
    ],
)
def test_file_systems(kind: str, severity: list[str]) -> None:
    assert said("store.network-disk", replace(SOUND, file_system=kind)) == severity
    for finding in outcome("store.network-disk", replace(SOUND, file_system=kind)).findings:
        assert finding.remedy.commands == ("findmnt --target /models", "df -h --local")


@pytest.mark.parametrize(
    ("rotational", "pinned", "state"),
    [(True, 20 * GIB, "found"), (True, 4 * GIB, "ok"), (None, 20 * GIB, "unknown"), (False, 20 * GIB, "ok")],
)
def test_disks_that_turn(rotational: bool | None, pinned: int, state: str) -> None:
    assert outcome("store.spinning-disk", replace(SOUND, rotational=rotational, pinned_bytes=pinned)).state == state


def test_what_may_not_be_read_is_unknown_and_not_an_error() -> None:
    """The store of a service, looked at by somebody else."""
    hidden = replace(SOUND, readable=False, own=False, problem="cannot read /models: permission denied")
    for check in ("store.unreadable", "store.missing", "store.drift", "store.corrupt-manifest", "store.leftovers"):
        assert outcome(check, hidden).state == "unknown"
    assert said("store.unreadable", replace(hidden, own=True)) == ["error"]
    assert outcome("store.space", StoreFacts(None, "the server is on another machine")).state == "unknown"


def test_a_store_that_is_not_there_yet_is_no_fault() -> None:
    assert said("store.unreadable", replace(SOUND, there=False, used=False)) == []
    assert said("store.unreadable", replace(SOUND, there=False, pinned_bytes=0)) == []
    assert said("store.unreadable", replace(SOUND, there=False)) == ["error"]


def test_what_no_profile_names_is_a_warning() -> None:
    other = Trouble("old:latest", "its blob is not there", wanted=False)
    assert said("store.missing", replace(SOUND, missing=(other,))) == ["warning"]
    assert said("store.missing", replace(SOUND, missing=(replace(other, wanted=True), other))) == ["error", "warning"]


def test_the_commands_have_the_rights_that_they_need() -> None:
    trouble = Trouble("a b", "its blob is not there")
    (finding,) = outcome("store.missing", replace(SOUND, missing=(trouble,), llmctl="sudo llmctl")).findings
    assert finding.remedy.commands == ("sudo llmctl repair 'a b'",)


@pytest.mark.parametrize(
    ("denied", "command"),
    [
        (Denied("/home/ann", "0700", "ann", "pass"), "sudo chmod o+x /home/ann"),
        (Denied("/models", "0700", "root", "read"), "sudo chmod -R o+rX /models"),
        (Denied("/models/blobs", "0755", "root", "write"), "sudo chown -R ollama /models"),
        (Denied("/models", "0500", "ollama", "write"), "sudo chmod u+rwx /models"),
        (Denied("/", "0755", "root", "write"), "sudo install -d -o ollama -m 0755 /models"),
        (Denied("/", "0555", "ollama", "write"), "sudo install -d -o ollama -m 0755 /models"),
    ],
)
def test_what_lets_the_servers_user_in(denied: Denied, command: str) -> None:
    (finding,) = outcome("store.permissions", replace(SOUND, denied=(denied,))).findings
    assert finding.remedy.commands[0] == command


@pytest.mark.parametrize("needs", ["pass", "read", "write"])
@pytest.mark.parametrize("owner", ["root", "ollama"])
@pytest.mark.parametrize("path", ["/", "/srv", "/srv/ai", "/srv/ai/models", "/srv/ai/models/blobs"])
def test_nothing_beside_the_store_is_changed_with_all_that_it_holds(
    path: str, owner: str, needs: Literal["pass", "read", "write"]
) -> None:
    store = replace(SOUND, path="/srv/ai/models", denied=(Denied(path, "0755", owner, needs),))
    for finding in outcome("store.permissions", store).findings:
        for command in finding.remedy.commands:
            target = shlex.split(command)[-1]
            assert "-R" not in command or target.startswith("/srv/ai/models"), command


@pytest.mark.parametrize(
    ("other", "models", "severity"),
    [
        (OtherStoreFacts("/o", 3), 3, []),
        (OtherStoreFacts("/o", 3, ("x:latest",)), 3, ["info"]),
        (OtherStoreFacts("/o", 3, ("x:latest",), ("x:latest",)), 3, ["warning"]),
        (OtherStoreFacts("/o", 3, ("x:latest",)), 0, ["warning"]),
    ],
)
def test_another_store(other: OtherStoreFacts, models: int, severity: list[str]) -> None:
    assert said("store.two-stores", replace(SOUND, others=(other,), models=models)) == severity


def test_rights_that_cannot_be_judged_are_unknown() -> None:
    """An access list, or a folder that this user may not look into."""
    listed = replace(SOUND, unjudged=("/models",))
    assert outcome("store.permissions", listed).state == "unknown"
    barred = replace(listed, denied=(Denied("/home/ann", "0700", "ann", "pass"),))
    assert said("store.permissions", barred) == ["error"]
    assert outcome("store.permissions", replace(listed, read_only=True)).state == "found"
