"""Everything that the checks know, gathered once: one dataclass for each area.

An area that could not be gathered is not there, and whoever reads it raises NotGathered, which makes the check's
outcome `unknown`. Inside an area None is unknown, never "no" or 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.checks.facts.fit import FitFacts
from llmctl.core.checks.facts.gpu import GpuFacts
from llmctl.core.checks.facts.hashed import HashedFacts
from llmctl.core.checks.facts.host import HostFacts
from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.checks.facts.models import ModelsFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.security import SecurityFacts
from llmctl.core.checks.facts.server import ServerFacts
from llmctl.core.checks.facts.service import ServiceFacts
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.checks.facts.speed import SpeedFacts
from llmctl.core.checks.facts.store import StoreFacts

Area = TypeVar("Area")


class NotGathered(Exception):
    """An area that is not there, and why."""


@dataclass(frozen=True)
class Facts:
    """`areas` by name; `missing` says why one of them is not there."""

    areas: Mapping[str, object] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def _area(self, name: str, kind: type[Area]) -> Area:
        found = self.areas.get(name)
        if not isinstance(found, kind):
            raise NotGathered(self.missing.get(name, f"{name} was not looked at"))
        return found

    @property
    def shell(self) -> ShellFacts:
        return self._area("shell", ShellFacts)

    @property
    def profile(self) -> ProfileFacts:
        return self._area("profile", ProfileFacts)

    @property
    def engine(self) -> EngineFacts:
        return self._area("engine", EngineFacts)

    @property
    def server(self) -> ServerFacts:
        return self._area("server", ServerFacts)

    @property
    def models(self) -> ModelsFacts:
        return self._area("models", ModelsFacts)

    @property
    def gpu(self) -> GpuFacts:
        return self._area("gpu", GpuFacts)

    @property
    def fit(self) -> FitFacts:
        return self._area("fit", FitFacts)

    @property
    def host(self) -> HostFacts:
        return self._area("host", HostFacts)

    @property
    def log(self) -> LogFacts:
        return self._area("log", LogFacts)

    @property
    def store(self) -> StoreFacts:
        return self._area("store", StoreFacts)

    @property
    def service(self) -> ServiceFacts:
        return self._area("service", ServiceFacts)

    @property
    def security(self) -> SecurityFacts:
        return self._area("security", SecurityFacts)

    @property
    def speed(self) -> SpeedFacts:
        return self._area("speed", SpeedFacts)

    @property
    def deep(self) -> DeepFacts:
        return self._area("deep", DeepFacts)

    @property
    def hashed(self) -> HashedFacts:
        return self._area("hashed", HashedFacts)
