"""What the names on a server stand for. Asked again only when something says that it changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.model import ModelRef
from llmctl.errors import LlmctlError
from llmctl.library import weights
from llmctl.system.store import Store
from llmctl.workflows.watched import Watched, written

if TYPE_CHECKING:
    from llmctl.client import Client

MOST_KNOWN = 64


@dataclass
class Names:
    """The weights behind manifests, and the aliases of the guard's models."""

    _weights: dict[str, str | None] = field(default_factory=dict)

    def weights(self, client: Client, name: str, digest: str, store: Path | None) -> str | None:
        """The weights that a name stands for while its manifest is `digest`; None where nobody can tell."""
        if digest not in self._weights:
            if len(self._weights) >= MOST_KNOWN:
                self._weights.clear()
            try:
                self._weights[digest] = weights.digest_of(client, name, store)
            except LlmctlError:
                return None
        return self._weights[digest]

    def look_up(self, models: Iterable[Watched], client: Client, store: Path | None, *, afresh: bool) -> None:
        """What each alias stands for: of the server's list, when its manifest was written or it is time."""
        stale = [model for model in models if afresh or model.alias != "there" or rewritten(model)]
        if not stale:
            return
        tags = {tag.name.lower(): tag.digest for tag in client.tags()}
        for model in stale:
            model.manifest = manifest(model, store)
            digest = tags.get(model.want.alias.lower())
            if digest is None:
                model.alias = "gone"
            elif (
                digest in model.want.digests
                or self.weights(client, model.want.alias, digest, store) == model.want.weights_digest
            ):
                model.alias, model.digest = "there", digest
                model.want = replace(model.want, digests=model.want.digests | {digest})
            else:
                model.alias = "other"


def manifest(model: Watched, store: Path | None) -> tuple[Path, tuple[int, int] | None] | None:
    """The alias's manifest in the store, and when it was written."""
    if store is None:
        return None
    try:
        path = Store(store).manifest_path(ModelRef.parse(model.want.alias))
    except LlmctlError:
        return None
    return path, written(path)


def rewritten(model: Watched) -> bool:
    return model.manifest is not None and written(model.manifest[0]) != model.manifest[1]
