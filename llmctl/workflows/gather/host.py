"""The machine's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.core.checks.facts.host import HostFacts
from llmctl.system import host

if TYPE_CHECKING:
    from llmctl.workflows.gather import Given


def gather(_: Given) -> HostFacts:
    return HostFacts(*host.memory_bytes(), host.free_swap_bytes())
