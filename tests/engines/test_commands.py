"""`llmctl engine` as a person and a script use it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from llmctl.__main__ import main
from llmctl.cli import main as cli_main
from llmctl.engines import Engines
from llmctl.engines.found import check_runs
from llmctl.env import Env
from llmctl.system.paths import from_environment
from tests.engines.standins import Release, engine_members, lay_out, tar_zst
from tests.engines.test_find import add_private


def run(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = cli_main(["engine", *arguments], Env(environ, io.StringIO(), stdout, stderr))
    return code, stdout.getvalue(), stderr.getvalue()


def test_list_of_nothing_names_the_command_that_helps(environ: dict[str, str]) -> None:
    code, stdout, _ = run(environ, "list")
    assert code == 0
    assert "llmctl engine install" in stdout


def test_list_marks_the_one_in_use(environ: dict[str, str], engines: Engines, tmp_path: Path) -> None:
    add_private(engines, "0.33.0")
    add_private(engines, "0.34.0")
    lay_out(tmp_path / "opt", "0.24.0")
    (tmp_path / "bin" / "ollama").symlink_to(tmp_path / "opt" / "bin" / "ollama")
    code, stdout, _ = run(environ, "list")
    assert code == 0
    blocks = stdout.split("version")[1:]
    assert ["0.34.0-cpu" in block for block in blocks] == ["in use" in block for block in blocks]
    assert "not used: " in stdout
    assert "older than 0.30" in stdout


def test_use_changes_what_is_in_use(environ: dict[str, str], engines: Engines) -> None:
    add_private(engines, "0.33.0")
    add_private(engines, "0.34.0")
    code, stdout, _ = run(environ, "use", "0.33.0", "--json")
    document = json.loads(stdout)
    assert (code, document["schema"], document["in_use"]["version"]) == (0, 1, "0.33.0")
    assert {engine["version"] for engine in document["engines"]} == {"0.33.0", "0.34.0"}


def test_use_of_what_is_not_there_is_exit_4(environ: dict[str, str]) -> None:
    code, stdout, stderr = run(environ, "use", "0.33.0")
    assert (code, stdout) == (4, "")
    assert stderr.splitlines()[-1] == "hint: llmctl engine install 0.33.0"


def test_install_prints_one_document(with_release: Release, environ: dict[str, str]) -> None:
    digest = with_release.offer(tar_zst(engine_members()))
    code, stdout, stderr = run(environ, "install", "0.34.0", "--json")
    document = json.loads(stdout)
    assert code == 0
    assert (document["schema"], document["origin"], document["release_sha256"]) == (1, "release", digest)
    assert "engine download" in stderr


def test_a_build_without_a_terminal_needs_yes(environ: dict[str, str], tmp_path: Path) -> None:
    for compiler in ("gcc", "g++"):
        (tmp_path / "bin" / compiler).symlink_to("/bin/true")
    code, stdout, stderr = run(environ, "install", "0.34.0", "--source", "registry", "--cpu", "--json")
    assert (code, stdout) == (2, "")
    assert json.loads(stderr.splitlines()[-1])["error"]["code"] == "consent_needed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("install", "latest"), 2),
        (("install", "0.34.0", "--source", "elsewhere"), 2),
        (("install", "0.34.0", "--source", "registry"), 1),
        (("install", "0.35.0", "--source", "registry", "--cpu"), 1),
        (("install", "0.34.0", "--source", "release"), 1),
        (("use",), 2),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, environ: dict[str, str]) -> None:
    found, stdout, stderr = run(environ, *arguments)
    assert (found, stdout) == (code, "")
    assert "error: " in stderr


@pytest.mark.real("ollama")
def test_the_real_engine_is_found_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {**os.environ, "PATH": "/nonexistent"}
    engine = Engines(from_environment(environ), environ).find()
    assert engine is not None
    check_runs(engine, environ)
    assert main(["engine", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["engines"]
    assert str(engine.prefix) in [each["prefix"] for each in listed]
