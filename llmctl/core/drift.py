"""What is pinned beside what was found, as data: the document of a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.changes import Change, changes

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.core.pin import Pin


@dataclass(frozen=True)
class Drift:
    """The manifests of both sides, as `sha256:<64 hex>`, and the parts that differ.

    `found_digest` is None for what is damaged, and `changes` is empty where nobody tells the parts.
    """

    name: str
    pinned_digest: str
    found_digest: str | None
    changes: tuple[Change, ...] = ()


def drift(pin: Pin, found: Manifest | None, found_digest: str | None = None) -> Drift:
    """`found_digest` is for a manifest that cannot be looked into."""
    if found is None:
        return Drift(pin.name, pin.manifest_digest, found_digest)
    parts = changes(pin.layers, pin.config, found.layers, found.config)
    return Drift(pin.name, pin.manifest_digest, found.digest, parts)
