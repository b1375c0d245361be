"""pull, list and rm as a person types them, against a real attached server."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import main
from llmctl.core.profile import ModelSpec, Profile
from llmctl.env import Env
from llmctl.errors import ExitCode, NotFound, UsageError
from llmctl.library import lock_file
from llmctl.workflows.models import name_of_file, spec_for
from tests.library.conftest import STARTER_DIGEST
from tests.parts.ollama import OllamaServer
from tests.registry_server import Registry

real = pytest.mark.real("ollama", "model")


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


@dataclass
class Typed:
    """`typed("pull", …)` runs a command line against the server at `url`, with no terminal."""

    url: str
    folder: Path

    def __call__(self, *words: str) -> Ran:
        stdin, stdout, stderr = io.StringIO(), io.StringIO(), io.StringIO()
        environ = {**os.environ, "OLLAMA_HOST": self.url, "LLMCTL_CONFIG_DIR": str(self.folder)}
        code = main(list(words), Env(environ, stdin, stdout, stderr))
        return Ran(code, stdout.getvalue(), stderr.getvalue())

    @property
    def lock(self) -> Path:
        return self.folder / "profile.lock"


@pytest.fixture
def typed(ollama_server: Callable[[], OllamaServer], tmp_path: Path) -> Typed:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    return Typed(ollama_server().url, folder)


@real
def test_pull_list_and_rm(typed: Typed, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    refused = typed("pull", name, "--json")
    assert refused.code == ExitCode.USAGE
    assert refused.out == ""
    assert json.loads(refused.err.splitlines()[-1])["error"]["code"] == "consent_needed"
    assert not typed.lock.exists()

    pulled = typed("pull", name, "--yes", "--json")
    assert pulled.code == 0, pulled.err
    assert pulled.json["schema"] == 1
    assert pulled.json["weights_digest"] == STARTER_DIGEST
    assert lock_file.read(typed.lock).models[0].alias == pulled.json["alias"]
    assert typed("pull", name, "--json").json["changed"] is False

    shown = typed("list", "--json").json
    assert [(model["name"], model["pin_state"]) for model in shown["models"]] == [(name, "pinned")]
    assert "Q4_K_M" in typed("list").out

    assert typed("rm", name).code == ExitCode.USAGE
    removed = typed("rm", name, "--yes", "--json")
    assert removed.code == 0
    assert removed.json["unpinned"] is True
    assert lock_file.read(typed.lock).models == ()
    assert typed("rm", name, "--yes").code == ExitCode.NOT_FOUND


@real
def test_a_gguf_file_is_pulled_by_its_path(typed: Typed, starter_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "My Model (v2).gguf"
    path.symlink_to(starter_gguf)
    done = typed("pull", str(path), "--json")
    assert done.code == 0, done.err
    assert done.json["name"] == "My-Model-v2:latest"
    assert done.json["source"] == f"{path} {STARTER_DIGEST}"


@real
def test_the_errors_say_what_and_what_next(typed: Typed, registry: Registry) -> None:
    missing = typed("pull", registry.name("nothing:here"))
    assert missing.code == ExitCode.NOT_FOUND
    assert registry.host in missing.err
    assert "hint: " in missing.err
    assert typed("pull", "qwen3@sha256:00").code == ExitCode.USAGE
    assert typed("pull", "./nowhere.gguf").code == ExitCode.NOT_FOUND


def test_without_a_server_the_verb_that_starts_it_is_named(tmp_path: Path, free_port: Callable[[], int]) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\n")
    for verb in (["pull", "m"], ["rm", "m"]):
        done = Typed(f"127.0.0.1:{free_port()}", folder)(*verb)
        assert done.code == ExitCode.UNREACHABLE
        assert "llmctl up" in done.err


PROFILE = Profile("p", (ModelSpec("m", fallback="starter", context=512, quantization="Q8_0"),))


def test_what_a_word_on_the_command_line_means(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.touch()
    assert spec_for(PROFILE, "m", None, None) == ModelSpec("m", quantization="Q8_0")
    assert spec_for(PROFILE, "other", None, "F16") == ModelSpec("other", quantization="F16")
    assert spec_for(PROFILE, str(file), None, None) == ModelSpec("x:latest", source=str(file))
    assert spec_for(PROFILE, str(file), "mine", None) == ModelSpec("mine", source=str(file))
    assert spec_for(PROFILE, "starter", None, None).source == "starter"
    with pytest.raises(UsageError, match="--name"):
        spec_for(PROFILE, "other", "mine", None)
    with pytest.raises(NotFound):
        spec_for(PROFILE, str(tmp_path / "none.gguf"), None, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/Qwen3-8B.Q4_K_M.gguf", "Qwen3-8B.Q4_K_M"),
        ("ä ö.GGUF", "model"),
        ("..gguf", "model"),
        ("a" * 200, "a" * 80),
    ],
)
def test_a_file_name_becomes_a_model_name(path: str, name: str) -> None:
    assert name_of_file(path) == f"{name}:latest"
