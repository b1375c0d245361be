"""What an archive says a model is, held against itself: nothing in a pin is taken that can be computed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from llmctl.core.image_layout import BadArchive, checked
from llmctl.core.manifest import Manifest
from llmctl.core.model import ModelRef, alias_for
from llmctl.core.pin import LockError, Pin
from llmctl.errors import UsageError

LONGEST_TEXT = 1000


@dataclass(frozen=True)
class Arrival:
    """A model of an archive. `pin` is None where the archive has none; `content` is the manifest's bytes."""

    name: str
    manifest: Manifest
    content: bytes
    pin: Pin | None

    @property
    def weights_digest(self) -> str:
        assert self.manifest.weights is not None
        return self.manifest.weights.digest


def arrival(name: str, manifest: Manifest, content: bytes, pin: Pin | None = None) -> Arrival:
    """BadArchive for a model that llmctl could not serve, UsageError for a name that it may not have."""
    if manifest.weights is None:
        raise BadArchive(f"{name} has no GGUF weights, so llmctl cannot serve it")
    ref = ModelRef.parse(name)
    if ref.private or ref.cloud:
        raise BadArchive(f"the archive calls a model {name}, which is a name that no archive may give")
    return Arrival(name, manifest, content, pin)


def pin_from(content: bytes, manifest: Manifest) -> Pin:
    """The pin that travelled with `manifest`, its alias by the rule. BadArchive where the two do not match."""
    try:
        pin = Pin.from_dict(checked("the pin", content, json.loads))
        ref, served = ModelRef.parse(pin.name), ModelRef.parse(pin.served)
    except (LockError, UsageError) as error:
        raise BadArchive(f"the archive has a pin that llmctl did not write so: {error.message}") from None
    _require_plain(pin)
    if pin.source != "starter" and ref != served:
        raise BadArchive(f"the pin of {pin.name} is for {pin.served}")
    if served.private:
        raise BadArchive(f"the pin of {pin.name} is for {pin.served}, which is a name that no archive may give")
    if manifest.weights is None or pin.weights_digest != manifest.weights.digest:
        found = manifest.weights.digest if manifest.weights else "none"
        raise BadArchive(f"{pin.name} is pinned to the weights {pin.weights_digest}, its manifest has {found}")
    if pin.source == "registry":
        if pin.manifest_digest != manifest.digest:
            raise BadArchive(f"{pin.name} is pinned to {pin.manifest_digest}, its manifest is {manifest.digest}")
        _require_own_registry(pin, ref)
        pin = replace(pin, registry=ref.host)
    if pin.manifest_digest == manifest.digest:
        pin = replace(pin, layers=manifest.layers, config=manifest.config)
    return replace(pin, alias=alias_for(served, pin.manifest_digest))


def _require_own_registry(pin: Pin, ref: ModelRef) -> None:
    """`repair` fetches from there: an archive may not send it to another host than the name does."""
    address = urlsplit(pin.from_)
    if address.scheme.lower() in {"http", "https"} and address.netloc.lower() != ref.host.lower():
        raise BadArchive(f"the pin of {pin.name} is from {address.netloc or pin.from_}, which is not its registry")


def _require_plain(pin: Pin) -> None:
    """Its texts are shown on terminals."""
    for text in (pin.quantization, pin.engine, pin.pinned_at, pin.from_):
        if len(text) > LONGEST_TEXT or not text.isprintable():
            raise BadArchive(f"the pin of {pin.name} has a text that llmctl did not write: {text[:80]!r}")


def require_one_each(arrivals: Iterable[Arrival]) -> None:
    seen: dict[str, Arrival] = {}
    for each in arrivals:
        name = str(ModelRef.parse(each.name)).lower()
        if name in seen:
            one, other = seen[name].manifest.digest, each.manifest.digest
            raise BadArchive(f"the archive has two models called {each.name}: {one} and {other}")
        seen[name] = each


def sizes_of(arrivals: Iterable[Arrival]) -> dict[str, int]:
    """Every blob that is needed, by digest, the small ones first. BadArchive where two manifests contradict."""
    sizes: dict[str, int] = {}
    for blob in (blob for each in arrivals for blob in each.manifest.blobs):
        if sizes.setdefault(blob.digest, blob.size_bytes) != blob.size_bytes:
            raise BadArchive(f"the blob {blob.digest} has two sizes: {sizes[blob.digest]:,} and {blob.size_bytes:,}")
    return dict(sorted(sizes.items(), key=lambda item: (item[1], item[0])))
