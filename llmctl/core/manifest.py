"""A model's manifest: the list of its blobs, identified by the sha256 of its bytes.

Format: docker manifest v2 (ollama v0.34.0 manifest/manifest.go:16).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llmctl.core.digest import digest_of
from llmctl.core.pin import WEIGHTS_MEDIA_TYPE, Layer

MAXIMUM_LAYERS = 4096
# What every JSON reader takes exactly, and more than any file system holds.
LARGEST_LAYER_BYTES = (1 << 53) - 1
LONGEST_MEDIA_TYPE = 255
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Manifest:
    """`digest` is `sha256:<64 hex>` of the very bytes; Ollama stores and shows the same (since 0.19.0)."""

    digest: str
    config: Layer
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> Layer | None:
        """The GGUF blob. None for a model of another kind (safetensors, a cloud model)."""
        return next((layer for layer in self.layers if layer.media_type == WEIGHTS_MEDIA_TYPE), None)

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """Every blob once, the config included."""
        return tuple({layer.digest: layer for layer in (*self.layers, self.config)}.values())


def parse_manifest(content: bytes) -> Manifest:
    """Raises ValueError, which says what is missing."""
    try:
        document = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
        raise ValueError("it has no list of layers")
    entries = document["layers"]
    if len(entries) > MAXIMUM_LAYERS:
        raise ValueError(f"it has {len(entries)} layers")
    layers = tuple(_layer(entry) for entry in entries)
    return Manifest(digest_of(content), _layer(document.get("config")), layers)


def _layer(entry: Any) -> Layer:
    if not isinstance(entry, dict):
        raise ValueError("a layer is missing")
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"a layer has the digest {str(digest)[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_LAYER_BYTES:
        raise ValueError(f"a layer has the size {str(size)[:80]!r}")
    if len(str(media_type)) > LONGEST_MEDIA_TYPE:
        raise ValueError("a layer has a media type that is too long")
    return Layer(str(media_type), digest, size)
