"""Every fact that the checks read, gathered once, all areas at the same time and each with a deadline.

One module for each area, with a function `gather(given)`. An area that needs another one asks `given` for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait

# Before Python 3.11 it is not the built-in one.
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.progress import Progress, Step, StepState, silent
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.checks.facts.engine import EngineFacts
    from llmctl.core.checks.facts.gpu import GpuFacts
    from llmctl.core.checks.facts.host import HostFacts
    from llmctl.core.checks.facts.log import LogFacts
    from llmctl.core.checks.facts.models import ModelsFacts
    from llmctl.core.checks.facts.profile import ProfileFacts
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.core.checks.facts.shell import ShellFacts
    from llmctl.core.profile import Profile
    from llmctl.engines import Engines
    from llmctl.library import Library
    from llmctl.server import Server

AREAS = (
    "shell",
    "profile",
    "engine",
    "server",
    "models",
    "gpu",
    "host",
    "log",
    "store",
    "service",
    "security",
    "fit",
    "speed",
)
# A healthy machine answers everything within a second; one that does not must not hang doctor too.
DEADLINE_SECONDS = 10.0
# The slow ones, each with what it is called and its own time; a hash that is late ends itself, after the answer.
DEEP = {"deep": ("ask for one answer", 300.0), "hashed": ("hash every pinned blob", 2400.0)}

Area = TypeVar("Area")


@dataclass
class Given:
    """What the areas are gathered with. `find_profile` and `lock_path` raise what reading a profile raises.

    `client` answers soon or not at all. `progress` hears of the slow areas.
    """

    environ: Mapping[str, str]
    server: Server
    engines: Engines
    client: Callable[[str], Client]
    library: Callable[[str], Library]
    find_profile: Callable[[], Profile]
    lock_path: Callable[[Profile], Path]
    progress: Progress = silent
    _found: dict[str, Future[Any]] = field(default_factory=dict, init=False)

    def area(self, name: str, kind: type[Area]) -> Area:
        """Another area, when it is there. Raises NotGathered."""
        try:
            found = self._found[name].result(DEADLINE_SECONDS)
        except Late:
            raise NotGathered(late(name)) from None
        if not isinstance(found, kind):
            raise NotGathered(f"{name} is not there")
        return found

    def wait_for(self, name: str) -> None:
        """Until another area has come to an end, whatever it is, or its time is over."""
        wait([self._found[name]] if name in self._found else [], deadline(name))

    @property
    def deep(self) -> bool:
        """Whether --deep looks at everything."""
        return "deep" in self._found

    @property
    def of_shell(self) -> ShellFacts:
        from llmctl.core.checks.facts.shell import ShellFacts

        return self.area("shell", ShellFacts)

    @property
    def of_profile(self) -> ProfileFacts:
        from llmctl.core.checks.facts.profile import ProfileFacts

        return self.area("profile", ProfileFacts)

    @property
    def of_engine(self) -> EngineFacts:
        from llmctl.core.checks.facts.engine import EngineFacts

        return self.area("engine", EngineFacts)

    @property
    def of_server(self) -> ServerFacts:
        from llmctl.core.checks.facts.server import ServerFacts

        return self.area("server", ServerFacts)

    @property
    def of_models(self) -> ModelsFacts:
        from llmctl.core.checks.facts.models import ModelsFacts

        return self.area("models", ModelsFacts)

    @property
    def of_gpu(self) -> GpuFacts:
        from llmctl.core.checks.facts.gpu import GpuFacts

        return self.area("gpu", GpuFacts)

    @property
    def of_log(self) -> LogFacts:
        from llmctl.core.checks.facts.log import LogFacts

        return self.area("log", LogFacts)

    @property
    def of_host(self) -> HostFacts:
        from llmctl.core.checks.facts.host import HostFacts

        return self.area("host", HostFacts)

    @property
    def profile(self) -> Profile:
        """The profile in force. NotGathered where it cannot be read."""
        found = self.of_profile
        if found.profile is None:
            raise NotGathered(found.problem)
        return found.profile


def gather(given: Given, areas: Sequence[str] = AREAS, *, deep: bool = False) -> Facts:
    """The facts of `areas`. Never raises: what went wrong with an area stands in `missing`."""
    names = (*areas, *DEEP) if deep else tuple(areas)
    given._found.clear()
    given._found.update({name: Future() for name in names})
    for name in names:
        told(given, name, "running")
        started(partial(gathered, name, given), given._found[name], f"doctor-{name}")
    found: dict[str, object] = {}
    missing: dict[str, str] = {}
    began = time.monotonic()
    for name in names:
        try:
            found[name] = given._found[name].result(max(0.0, began + deadline(name) - time.monotonic()))
        except Late:
            missing[name] = late(name)
        except NotGathered as why:
            missing[name] = str(why)
        except LlmctlError as error:
            missing[name] = error.message
        except Exception as error:
            missing[name] = f"{name}: {type(error).__name__}: {error}"[:300]
        told(given, name, "failed" if name in missing else "done", missing.get(name, ""))
    return Facts(found, missing)


def within(name: str, work: Callable[[], Area]) -> Area:
    """What `work` returns or raises; NotGathered where it takes longer than an area may."""
    future: Future[Any] = Future()
    started(work, future, name)
    try:
        result: Area = future.result(DEADLINE_SECONDS)
    except Late:
        raise NotGathered(late(name)) from None
    return result


def started(work: Callable[[], object], future: Future[Any], name: str) -> None:
    def fill() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A driver or a disk that hangs must not keep the program from ending.
    threading.Thread(target=fill, name=name, daemon=True).start()


def gathered(name: str, given: Given) -> object:
    import importlib

    facts: object = importlib.import_module(f"llmctl.workflows.gather.{name}").gather(given)
    return facts


def deadline(name: str) -> float:
    """Seconds."""
    return DEEP[name][1] if name in DEEP else DEADLINE_SECONDS


def late(name: str) -> str:
    return f"{name} took longer than {deadline(name):,.0f} s"


def told(given: Given, name: str, state: StepState, why: str = "") -> None:
    if name in DEEP:
        given.progress(Step(name, DEEP[name][0], state, why))
