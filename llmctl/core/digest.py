"""What identifies bytes everywhere in llmctl."""

from __future__ import annotations

import hashlib


def digest_of(content: bytes) -> str:
    """`sha256:<64 hex>`, as manifests, locks and registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
