"""Every fact that the checks read, gathered once, all areas at the same time and each with a deadline.

One module for each area, with a function `gather(given)`. An area that needs another one asks `given` for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

# Before Python 3.11 it is not the built-in one.
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.checks.facts.engine import EngineFacts
    from llmctl.core.checks.facts.gpu import GpuFacts
    from llmctl.core.checks.facts.host import HostFacts
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
DEEP_SECONDS = 1800.0

Area = TypeVar("Area")


@dataclass
class Given:
    """What the areas are gathered with. `find_profile` and `lock_path` raise what reading a profile raises.

    `client` answers soon or not at all.
    """

    environ: Mapping[str, str]
    server: Server
    engines: Engines
    client: Callable[[str], Client]
    library: Callable[[str], Library]
    find_profile: Callable[[], Profile]
    lock_path: Callable[[Profile], Path]
    _found: dict[str, Future[Any]] = field(default_factory=dict, init=False)

    def area(self, name: str, kind: type[Area]) -> Area:
        """Another area, when it is there. Raises NotGathered."""
        try:
            found = self._found[name].result(DEADLINE_SECONDS)
        except Late:
            raise NotGathered(f"{name} took longer than {DEADLINE_SECONDS:.0f} s") from None
        if not isinstance(found, kind):
            raise NotGathered(f"{name} is not there")
        return found

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
    names = (*areas, "deep") if deep else tuple(areas)
    given._found.clear()
    given._found.update({name: Future() for name in names})
    for name in names:
        threading.Thread(target=_fill, args=(name, given), name=f"doctor-{name}", daemon=True).start()
    found: dict[str, object] = {}
    missing: dict[str, str] = {}
    began = time.monotonic()
    for name in names:
        limit = DEEP_SECONDS if name == "deep" else DEADLINE_SECONDS
        try:
            found[name] = given._found[name].result(max(0.0, began + limit - time.monotonic()))
        except Late:
            missing[name] = f"{name} took longer than {limit:.0f} s"
        except NotGathered as why:
            missing[name] = str(why)
        except LlmctlError as error:
            missing[name] = error.message
        except Exception as error:
            missing[name] = f"{name}: {type(error).__name__}: {error}"[:300]
    return Facts(found, missing)


def _fill(name: str, given: Given) -> None:
    import importlib

    future = given._found[name]
    try:
        future.set_result(importlib.import_module(f"llmctl.workflows.gather.{name}").gather(given))
    except BaseException as error:
        future.set_exception(error)
