"""profiles, init and config, through the command line."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import main
from llmctl.env import Env
from llmctl.errors import LlmctlError
from llmctl.system.files import atomic_write
from llmctl.system.paths import Paths
from llmctl.system.shipped import load_profile, load_shipped, shipped_names
from llmctl.workflows.profiles import init
from tests.profile.conftest import MINIMAL


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Llmctl = Callable[..., Ran]


@pytest.fixture
def llmctl() -> Llmctl:
    def run(*argv: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        code = main(list(argv), Env(dict(os.environ), io.StringIO(), out, err))
        return Ran(code, out.getvalue(), err.getvalue())

    return run


def test_profiles_lists_shipped_and_own_and_marks_the_active_one(llmctl: Llmctl, paths: Paths) -> None:
    before = llmctl("profiles", "--json").document
    assert [each["reference"] for each in before["profiles"] if each["origin"] == "shipped"] == shipped_names()
    assert before["active"] is None
    atomic_write(paths.profile, MINIMAL)
    after = llmctl("profiles", "--json").document
    own = next(each for each in after["profiles"] if each["origin"] == "own")
    assert own["reference"] == after["active"] == str(paths.profile)
    assert own["active"]
    assert own["models"] == ["qwen3:8b-q4_K_M"]
    assert f"* {paths.profile}" in llmctl("profiles").out


def test_profiles_lists_a_broken_one_with_its_problem(llmctl: Llmctl, paths: Paths) -> None:
    atomic_write(paths.profile, "schema: 3\n")
    ran = llmctl("profiles")
    assert ran.code == 0
    assert "not usable: line 1: schema: found 3, allowed 1 ..." in " ".join(ran.out.split())
    own = llmctl("profiles", "--json").document["profiles"][-1]
    assert own["problem"].startswith(f"{paths.profile}:1: schema: found 3")


def test_the_environment_chooses_the_active_one(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_PROFILE", "12gb")
    document = llmctl("profiles", "--json").document
    assert [each["name"] for each in document["profiles"] if each["active"]] == ["12gb"]
    assert document["chosen_by"] == "LLMCTL_PROFILE"


def test_init_writes_a_valid_commented_copy_once(llmctl: Llmctl, paths: Paths) -> None:
    first = llmctl("init", "24gb", "--json")
    assert (first.code, first.document["state"]) == (0, "written")
    text = paths.profile.read_text()
    assert "shipped profile 24gb" in text
    assert "RTX 3090" in text
    assert load_profile(paths.profile).models == load_shipped("24gb").models
    assert (paths.config / "profile.schema.json").is_file()
    second = llmctl("init", "24gb", "--json")
    assert (second.code, second.document["state"]) == (0, "already so")
    assert paths.profile.read_text() == text


def test_init_replaces_another_profile_only_by_force(llmctl: Llmctl, paths: Paths) -> None:
    atomic_write(paths.profile, MINIMAL)
    refused = llmctl("init", "cpu", "--json")
    assert refused.code == 5
    assert json.loads(refused.out)["error"]["hint"] == "llmctl init --force"
    assert refused.err == ""
    assert paths.profile.read_text() == MINIMAL
    assert llmctl("init", "cpu", "--force", "--json").document["state"] == "replaced"
    assert load_profile(paths.profile).models == load_shipped("cpu").models


def test_a_dry_run_prints_what_would_be_written(llmctl: Llmctl, paths: Paths, tmp_path: Path) -> None:
    ran = llmctl("init", "8gb", "--dry-run")
    assert ran.code == 0
    assert str(paths.profile) in ran.err
    assert not paths.config.exists()
    (tmp_path / "printed.yaml").write_text(ran.out)
    assert load_profile(tmp_path / "printed.yaml").models == load_shipped("8gb").models
    assert llmctl("init", "8gb", "--dry-run", "--json").document["content"] == ran.out


def test_init_of_an_unknown_profile(llmctl: Llmctl) -> None:
    ran = llmctl("init", "qickstart")
    assert ran.code == 4
    assert "did you mean quickstart?" in ran.err
    assert "hint: llmctl profiles" in ran.err


def test_init_into_a_read_only_folder_says_so(
    paths: Paths, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    paths.config.mkdir(parents=True)
    paths.config.chmod(0o555)
    with unprivileged(), pytest.raises(LlmctlError, match="permission denied") as caught:
        init("cpu", "as asked", paths, force=False, dry_run=False)
    assert str(paths.config) in caught.value.message
    assert list(paths.config.iterdir()) == []


def rows(document: Any, group: str) -> dict[str, tuple[Any, str]]:
    return {row["name"]: (row["value"], row["source"]) for row in document[group]}


def test_config_says_where_each_setting_came_from(
    llmctl: Llmctl, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_STATE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    atomic_write(paths.profile, MINIMAL + "server:\n  context: 4096\n")
    document = llmctl("config", "--json").document
    assert document["profile"] == str(paths.profile)
    assert rows(document, "folders")["state"] == (str(tmp_path / "elsewhere"), "LLMCTL_STATE_DIR")
    assert rows(document, "folders")["config"] == (str(paths.config), "XDG_CONFIG_HOME")
    assert rows(document, "files")["profile"] == (str(paths.profile), "the config folder")
    assert rows(document, "files")["lock"][0] == str(paths.config / "profile.lock")
    assert rows(document, "files")["models"] == (str(tmp_path / "models"), "OLLAMA_MODELS")
    assert rows(document, "settings")["server.context"] == (4096, "profile, line 5")
    assert rows(document, "settings")["server.kv_cache"] == ("f16", "default")
    assert rows(document, "settings")["models[0].name"] == ("qwen3:8b-q4_K_M", "profile, line 3")


def test_config_of_another_profile(llmctl: Llmctl) -> None:
    ran = llmctl("config", "--profile", "quickstart")
    assert ran.code == 0
    assert "(--profile)" in ran.out
    assert "a free port, chosen by up" in " ".join(ran.out.split())


def test_config_under_an_invalid_profile(llmctl: Llmctl, paths: Paths) -> None:
    atomic_write(paths.profile, MINIMAL + "sever: {}\n")
    ran = llmctl("config")
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {paths.profile}:4: sever: found an unknown key" in ran.err
    assert "hint: llmctl init --dry-run" in ran.err
