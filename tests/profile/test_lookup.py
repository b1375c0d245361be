"""Which profile is meant: flag, environment, the last up, the files; and where its pins are."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.profile import Profile
from llmctl.errors import ExitCode, InvalidProfile, NotFound
from llmctl.system.files import atomic_write
from llmctl.system.paths import Paths
from llmctl.system.shipped import load_profile, load_shipped, lock_path, resolve
from tests.profile.conftest import MINIMAL


def named(profile: Profile | None) -> str | None:
    return profile.reference if profile else None


def test_each_source_wins_over_the_next(paths: Paths, tmp_path: Path) -> None:
    assert resolve(None, paths, {}, None) is None
    atomic_write(paths.system_profile, MINIMAL)
    assert named(resolve(None, paths, {}, None)) == str(paths.system_profile)
    atomic_write(paths.profile, MINIMAL)
    assert named(resolve(None, paths, {}, None)) == str(paths.profile)
    assert named(resolve(None, paths, {}, "12gb")) == "12gb"
    environ = {"LLMCTL_PROFILE": "8gb"}
    assert named(resolve(None, paths, environ, "12gb")) == "8gb"
    assert named(resolve("cpu", paths, environ, "12gb")) == "cpu"
    assert named(resolve(None, paths, {"LLMCTL_PROFILE": ""}, None)) == str(paths.profile)


def test_a_path_is_a_file_and_a_word_is_a_shipped_name(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cpu", "cpu.yaml", "other.yml"):
        Path(name).write_text(MINIMAL)
    assert resolve("cpu", paths, {}, None) == load_shipped("cpu")
    assert named(resolve("cpu.yaml", paths, {}, None)) == str(tmp_path / "cpu.yaml")
    assert named(resolve("other.yml", paths, {}, None)) == str(tmp_path / "other.yml")
    assert named(resolve("./cpu", paths, {}, None)) == str(tmp_path / "cpu")


def test_a_home_in_a_path_is_spelled_out(paths: Paths, home: Path) -> None:
    (home / "mine.yaml").write_text(MINIMAL)
    assert named(resolve("~/mine.yaml", paths, {}, None)) == str(home / "mine.yaml")


def test_an_unknown_name_is_not_found_and_the_nearest_one_said(paths: Paths) -> None:
    with pytest.raises(NotFound, match="'24g'; did you mean 24gb") as caught:
        resolve("24g", paths, {}, None)
    assert caught.value.exit_code == ExitCode.NOT_FOUND
    assert caught.value.hint == "llmctl profiles"


def test_a_missing_file_is_not_found(paths: Paths) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml"):
        resolve("nowhere.yaml", paths, {}, None)


def test_a_broken_file_is_an_error_and_not_as_if_it_were_not_there(paths: Paths) -> None:
    atomic_write(paths.system_profile, MINIMAL)
    atomic_write(paths.profile, "schema: 2\n")
    with pytest.raises(InvalidProfile, match=str(paths.profile)):
        resolve(None, paths, {}, None)


def test_pins_are_beside_ones_own_profile(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "work.v2.yaml").write_text(MINIMAL)
    assert lock_path(load_profile(tmp_path / "work.v2.yaml"), paths) == tmp_path / "work.v2.lock"
    assert lock_path(load_shipped("24gb"), paths) == paths.config / "24gb.lock"
