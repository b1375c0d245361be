"""What the registries say that pinned names stand for now: asked all at once, and never the end of a verb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmctl.core.model import ModelRef
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.core.pin import Pin

AT_ONCE = 8


@dataclass(frozen=True)
class Upstream:
    """same: the registry still has the pinned manifest. newer: it has another one, `digest` (64 hex digits).
    unknown: `reason` says why it could not be asked."""

    state: Literal["same", "newer", "unknown"]
    digest: str | None = None
    reason: str | None = None


def ask_all(pins: Iterable[Pin], environ: Mapping[str, str]) -> dict[str, Upstream]:
    """By the pins' names. A host that cannot be reached is asked once, or as often as was under way by then."""
    from concurrent.futures import ThreadPoolExecutor

    asked = [pin for pin in pins if pin.source == "registry"]
    away: dict[str, Upstream] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(
            zip((pin.name for pin in asked), pool.map(lambda pin: _ask(pin, environ, away), asked), strict=True)
        )


def _ask(pin: Pin, environ: Mapping[str, str], away: dict[str, Upstream]) -> Upstream:
    from llmctl.system import registry

    ref = ModelRef.parse(pin.served)
    if ref.host in away:
        return away[ref.host]
    try:
        digest = registry.manifest(ref, environ).digest
    except registry.RegistryUnreachable as error:
        away[ref.host] = Upstream("unknown", reason=error.message)
        return away[ref.host]
    except LlmctlError as error:
        return Upstream("unknown", reason=error.message)
    return Upstream("same" if digest == pin.manifest_digest else "newer", digest.removeprefix("sha256:"))
