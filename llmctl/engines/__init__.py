"""Engine versions: find one that will do, get one where there is none, keep several side by side.

The order, the same in `up` and everywhere else (each with the reason in `Engine.reason`):
1. the program that LLMCTL_ENGINE names, then the one chosen with `llmctl engine use`, then `ollama` on PATH;
2. a private engine that is installed;
3. the official release archive;
4. a build from package registries, where the release cannot be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llmctl.core.engine import (
    DEFAULT_VERSION,
    MINIMUM_VERSION,
    Engine,
    Overview,
    Rule,
    best,
    is_new_enough,
    normal_version,
    objection,
)
from llmctl.core.progress import Consent, Progress, Step, silent
from llmctl.engines import found, tools
from llmctl.engines.recipes import RECIPES, Recipe
from llmctl.engines.steps import running
from llmctl.engines.store import Store
from llmctl.errors import DownloadFailed, EngineMissing, LlmctlError, UsageError
from llmctl.system.paths import Paths

__all__ = ["Engine", "Engines", "Search", "Source"]

Source = Literal["release", "registry"]


@dataclass(frozen=True)
class Search:
    """The engine to use, and why each one before it was passed over."""

    engine: Engine | None
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What `install` was asked for. `cuda` None leaves it to the machine."""

    version: str
    source: Source | None
    cuda: bool | None
    cpu_only_allowed: bool
    expected_sha256: str | None

    def met_by(self, engine: Engine) -> bool:
        """Whether an installed engine is what was ordered already."""
        if objection(engine, Rule(self.version, self.expected_sha256)) or self.source not in (None, engine.origin):
            return False
        if engine.origin == "registry" and self.cuda is not None:
            return engine.backend == ("cuda" if self.cuda else "cpu")
        return True


class Engines:
    """The engines of this machine that llmctl may use. `recipes` are the versions that can be built."""

    def __init__(self, paths: Paths, environ: Mapping[str, str], recipes: Mapping[str, Recipe] = RECIPES) -> None:
        self.paths = paths
        self.environ = environ
        self.recipes = recipes
        self.store = Store(paths.engines)

    def list(self) -> list[Engine]:
        """Every complete engine here, in the order in which they are considered."""
        outside_engines, _ = outside(self.environ)
        return [*outside_engines, *self.store.engines()]

    def find(self, version: str | None = None) -> Engine | None:
        """The engine that `up` would use without getting one, or None. `search` says why."""
        return self.search(Rule(version)).engine

    def search(self, rule: Rule) -> Search:
        """Go through what is here in order. Raises EngineMissing when LLMCTL_ENGINE names something unusable."""
        candidates, passed_over = outside(self.environ)
        chosen = self.store.current()
        if chosen is not None:
            chosen = replace(chosen, reason=f"chosen with `llmctl engine use`, {chosen.reason}")
            candidates.insert(1 if candidates and candidates[0].origin == "configured" else 0, chosen)
        for engine in candidates:
            problem = objection(engine, rule)
            if problem is None:
                return Search(engine, tuple(passed_over))
            passed_over.append(f"{engine.executable} {problem}")
            if engine.origin == "configured":
                raise EngineMissing(f"{found.CONFIGURED}: {engine.executable} {problem}", f"unset {found.CONFIGURED}")
        private = self.store.engines()
        taken = best(private, rule)
        if taken is None:
            passed_over += [f"{other.name} {objection(other, rule)}" for other in private]
        return Search(taken, tuple(passed_over))

    def overview(self) -> Overview:
        """What is here and which of it is used, for `llmctl engine list`. Under a profile with a version of its own
        `up` may take another one."""
        search = self.search(Rule())
        engines = tuple(
            search.engine if search.engine and engine.prefix == search.engine.prefix else engine
            for engine in self.list()
        )
        return Overview(engines, search.engine, search.passed_over)

    def ensure(
        self,
        version: str | None = None,
        *,
        cpu_only_allowed: bool,
        expected_sha256: str | None = None,
        progress: Progress = silent,
        consent: Consent,
    ) -> Engine:
        """The engine to use, got where there is none. `expected_sha256` is the release archive's hash from the lock.

        Raises EngineMissing, DownloadFailed, DiskFull, or what `consent` raises.
        """
        rule = Rule(wanted_version(version), expected_sha256, cpu_only_allowed)
        with running(progress, "engine", "engine") as step:
            search = self.search(rule)
            notes = f" (passed over: {'; '.join(search.passed_over)})" if search.passed_over else ""
            engine = search.engine
            if engine is None:
                step.say(f"none here that will do{notes}")
                order = Order(rule.version or DEFAULT_VERSION, None, None, cpu_only_allowed, expected_sha256)
                engine = self._install(order, progress, consent)
            step.say(f"{engine.kind} {engine.version}: {engine.reason}{notes}")
        return engine

    def install(
        self,
        version: str | None = None,
        source: Source | None = None,
        cuda: bool | None = None,
        progress: Progress = silent,
        *,
        consent: Consent,
    ) -> Engine:
        """A private engine of this version (default: the newest that can be built), unless it is there already.

        `source` None takes the official release and, where that cannot be reached, a build. `cuda` None builds with
        CUDA where nvcc is, and refuses where it is not: CPU-only must be asked for with False.
        """
        order = Order(wanted_version(version) or DEFAULT_VERSION, source, cuda, cuda is False, None)
        return self._install(order, progress, consent)

    def use(self, name: str) -> Engine | None:
        """Prefer the private engine of this version or folder name over the one on PATH. `path` takes that back; None
        then says that nothing is chosen. Raises NotFound."""
        if name == "path":
            self.store.forget_choice()
            return None
        return self.store.choose(normal_version(name) or name)

    def _install(self, order: Order, progress: Progress, consent: Consent) -> Engine:
        wait = Step("engine.wait", "wait", "running", f"another llmctl installs {order.version}")
        waited: list[Step] = []

        def waiting() -> None:
            waited.append(wait)
            progress(wait)

        with self.store.locked(order.version, waiting):
            for step in waited:
                progress(replace(step, state="done", detail="the other llmctl has ended"))
            engine = best(filter(order.met_by, self.store.engines()), Rule(cpu_only_allowed=order.cpu_only_allowed))
            if engine is not None:
                progress(Step("engine.installed", "engine install", "skipped", f"{engine.name} is installed"))
                return engine
            return self._get(order, progress, consent)

    def _get(self, order: Order, progress: Progress, consent: Consent) -> Engine:
        from llmctl.engines import release

        if order.source == "registry":
            return self._build(order, progress, consent)
        step = Step("engine.release", "official release", "running", f"ask for {order.version}")
        progress(step)
        try:
            offer = release.look(order.version, self.environ)
        except DownloadFailed as error:
            problem = error.message
            progress(replace(step, state="failed", detail=problem))
            if order.source == "release":
                raise
        else:
            progress(replace(step, state="done", detail=f"{order.version}, sha256 {offer.sha256[:12]}"))
            return release.install(offer, self.store, order.expected_sha256, self.environ, progress, consent)
        progress(Step("engine.next", "next source", "done", "a build from package registries"))
        try:
            return self._build(order, progress, consent)
        except EngineMissing as error:
            message = f"{error.message} (the official release: {problem})"
            raise EngineMissing(message, error.hint, code=error.code) from error

    def _build(self, order: Order, progress: Progress, consent: Consent) -> Engine:
        from llmctl.engines.build import Builder

        recipe = self.recipes.get(order.version)
        if recipe is None:
            raise EngineMissing(
                f"Ollama {order.version} cannot be built from package registries, only {', '.join(self.recipes)}",
                f"llmctl engine install {next(iter(self.recipes))}",
            )
        log = self.paths.logs / f"engine-build-{order.version}.log"
        cache = self.paths.cache / f"go-{order.version}"
        nvcc = self._nvcc(order)
        return Builder(recipe, nvcc, self.store, cache, log, self.environ, progress).build(consent)

    def _nvcc(self, order: Order) -> Path | None:
        """The CUDA compiler to build with, None for a CPU-only build that was asked for."""
        if order.cuda is False:
            return None
        nvcc = tools.nvcc(self.environ)
        if nvcc is None and (order.cuda or not order.cpu_only_allowed):
            raise EngineMissing(
                "there is no CUDA compiler (nvcc), and a CPU-only build was not asked for",
                f"install the CUDA toolkit, or: llmctl engine install {order.version} --cpu",
                code="nvcc_missing",
            )
        return nvcc


def outside(environ: Mapping[str, str]) -> tuple[list[Engine], list[str]]:
    """The configured engine and the one on PATH; for one that is not usable, why."""
    engines: list[Engine] = []
    problems: list[str] = []
    named = found.configured(environ)
    if named is not None:
        engines.append(found.look(named, "configured", environ))
    program = found.on_path(environ)
    if program is not None:
        try:
            engines.append(found.look(program, "path", environ))
        except LlmctlError as error:
            problems.append(error.message)
    return engines, problems


def wanted_version(text: str | None) -> str | None:
    """The version asked for, None where any will do. Raises UsageError."""
    if text is None:
        return None
    version = normal_version(text)
    if version is None:
        raise UsageError(f"{text!r} is not an engine version", f"llmctl engine install {DEFAULT_VERSION}")
    if not is_new_enough(version):
        minimum = MINIMUM_VERSION.removesuffix(".0")
        raise UsageError(
            f"Ollama {version} is older than {minimum}, the oldest that llmctl can drive",
            f"llmctl engine install {DEFAULT_VERSION}",
        )
    return version
