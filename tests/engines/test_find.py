"""Which engine is found on a machine, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.engine import Engine, Rule
from llmctl.engines import Engines
from llmctl.engines.store import Store, describe
from llmctl.errors import EngineMissing, NotFound, UsageError
from tests.engines.conftest import Asked
from tests.engines.standins import OLLAMA, lay_out, script


def add_private(engines: Engines, version: str, backend: str = "cpu") -> Engine:
    store = Store(engines.paths.engines)
    with store.locked(version, lambda: None), store.staging(version) as staging:
        lay_out(staging / "prefix", version)
        return store.publish(describe(staging / "prefix", version, "registry", backend, None), f"{version}-{backend}")


def put_on_path(environ: dict[str, str], prefix: Path, version: str) -> Path:
    """As distributions do it: a symlink on PATH to the real program."""
    program = lay_out(prefix, version)
    link = Path(environ["PATH"]) / "ollama"
    link.symlink_to(program)
    return link


def test_nothing_is_found_on_an_empty_machine(engines: Engines) -> None:
    assert engines.list() == []
    assert engines.find() is None


def test_the_one_on_path_comes_before_a_private_one(engines: Engines, environ: dict[str, str], tmp_path: Path) -> None:
    add_private(engines, "0.34.0")
    put_on_path(environ, tmp_path / "opt", "0.31.2")
    found = engines.find()
    assert found is not None
    assert (found.version, found.origin, found.runner) == (
        "0.31.2",
        "path",
        tmp_path / "opt" / "lib" / "ollama" / "llama-server",
    )


@pytest.mark.parametrize("version", ["0.24.0", "0.0.0"])
def test_an_old_one_on_path_is_passed_over_and_named(
    version: str, engines: Engines, environ: dict[str, str], tmp_path: Path
) -> None:
    add_private(engines, "0.34.0")
    put_on_path(environ, tmp_path / "opt", version)
    search = engines.search(Rule())
    assert search.engine is not None
    assert search.engine.origin == "registry"
    assert "older than 0.30" in search.passed_over[0]


def test_one_without_its_runner_is_no_engine(engines: Engines, environ: dict[str, str], tmp_path: Path) -> None:
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    (tmp_path / "opt" / "lib" / "ollama" / "llama-server").unlink()
    search = engines.search(Rule())
    assert search.engine is None
    assert "llama-server" in search.passed_over[0]


def test_one_that_does_not_run_is_no_engine(engines: Engines, environ: dict[str, str], tmp_path: Path) -> None:
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    script(tmp_path / "opt" / "bin" / "ollama", "#!/bin/sh\necho broken >&2\nexit 127\n")
    search = engines.search(Rule())
    assert search.engine is None
    assert "127: broken" in search.passed_over[0]


def test_a_running_server_does_not_answer_for_the_program(
    engines: Engines, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["OLLAMA_HOST"] = "127.0.0.1:11434"
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    server_answers = '#!/bin/sh\n[ "$OLLAMA_HOST" = 127.0.0.1:11434 ] && echo ollama version is 0.99.0 && exit\n'
    script(tmp_path / "opt" / "bin" / "ollama", server_answers + OLLAMA.format("0.34.0").partition("\n")[2])
    found = engines.find()
    assert found is not None
    assert found.version == "0.34.0"


def test_the_profiles_version_is_taken_exactly(engines: Engines, environ: dict[str, str], tmp_path: Path) -> None:
    add_private(engines, "0.33.0")
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    found = engines.find("0.33.0")
    assert found is not None
    assert (found.version, found.origin) == ("0.33.0", "registry")
    assert engines.find("0.32.0") is None


def test_a_configured_engine_comes_first(engines: Engines, environ: dict[str, str], tmp_path: Path) -> None:
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    environ["LLMCTL_ENGINE"] = str(lay_out(tmp_path / "mine", "0.30.1"))
    add_private(engines, "0.33.0")
    engines.use("0.33.0")
    found = engines.find()
    assert found is not None
    assert (found.version, found.origin) == ("0.30.1", "configured")


@pytest.mark.parametrize("version", [None, "0.20.0"])
def test_a_configured_engine_that_will_not_do_is_an_error(
    version: str | None, engines: Engines, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["LLMCTL_ENGINE"] = str(lay_out(tmp_path / "mine", version) if version else tmp_path / "absent")
    with pytest.raises(EngineMissing, match=str(tmp_path)):
        engines.find()


def test_a_chosen_engine_comes_before_path_until_the_choice_is_taken_back(
    engines: Engines, environ: dict[str, str], tmp_path: Path
) -> None:
    put_on_path(environ, tmp_path / "opt", "0.34.0")
    add_private(engines, "0.33.0")
    add_private(engines, "0.34.0")
    engines.use("0.33.0")
    engines.use("v0.34.0")
    engines.use("0.33.0-cpu")
    found = engines.find()
    assert found is not None
    assert (found.version, found.origin) == ("0.33.0", "registry")
    assert "engine use" in found.reason
    engines.use("path")
    again = engines.find()
    assert again is not None
    assert again.origin == "path"


def test_using_what_is_not_installed_names_what_is(engines: Engines) -> None:
    add_private(engines, "0.33.0")
    with pytest.raises(NotFound, match=r"0\.33\.0-cpu"):
        engines.use("0.34.0")


@pytest.mark.parametrize("damage", ["marker", "broken marker", "runner", "program"])
def test_a_half_installed_engine_is_not_used(damage: str, engines: Engines) -> None:
    whole = add_private(engines, "0.34.0")
    engines.use("0.34.0")
    match damage:
        case "marker":
            (whole.prefix / "engine.json").unlink()
        case "broken marker":
            (whole.prefix / "engine.json").write_text('{"schema": 1, "version": "0.34.0"')
        case "runner":
            whole.runner.unlink()
        case "program":
            whole.executable.chmod(0o644)
    assert engines.find() is None
    assert engines.list() == []


def test_ensure_says_which_and_why(engines: Engines, environ: dict[str, str], tmp_path: Path, asked: Asked) -> None:
    put_on_path(environ, tmp_path / "opt", "0.24.0")
    private = add_private(engines, "0.33.0")
    engine = engines.ensure(None, cpu_only_allowed=True, progress=asked.progress, consent=asked.consent)
    assert engine.prefix == private.prefix
    detail = asked.final()["engine"].detail
    assert "0.33.0" in detail
    assert "0.24.0, older than 0.30" in detail
    assert asked.questions == []


@pytest.mark.parametrize("version", ["latest", "0.29.0", "../0.34.0", ""])
def test_a_version_that_cannot_be_is_refused(version: str, engines: Engines, asked: Asked) -> None:
    with pytest.raises(UsageError):
        engines.install(version, consent=asked.consent)
