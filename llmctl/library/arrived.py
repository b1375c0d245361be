"""What a registry's model is made of, hashed before it is pinned.

Ollama hashes what it downloads and takes what is there already as it is (v0.34.0 server/images.go:1049): a blob that
another pull left, or that went bad since. It does not compare sizes either. So what it has not hashed just now is
hashed here.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from llmctl.errors import DownloadFailed

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.core.model import ModelRef
    from llmctl.library.blobs import BadBlob
    from llmctl.library.obtain import Obtain


def require_whole(run: Obtain, ref: ModelRef, manifest: Manifest, downloaded: frozenset[str]) -> None:
    """DownloadFailed where a blob is not what the manifest says. `downloaded` are those that Ollama hashed just now.

    Skipped where the store is another machine's or user's; `verify` says so where somebody can look.
    """
    from llmctl.library import blobs
    from llmctl.system.files import length
    from llmctl.system.store import Store
    from llmctl.system.verified import Verified

    if run.store is None:
        return
    store = Store(run.store)
    wanted = [
        blobs.Wanted(layer.digest, layer.size_bytes, (layer.media_type,), (str(ref),))
        for layer in manifest.blobs
        if layer.digest not in downloaded
    ]
    if wanted:
        checked = blobs.check(store, wanted, Verified(run.paths.state, run.store), None, run.progress)
        if bad := [blob for blob in checked.bad if blob.problem != "unreadable"]:
            raise _damaged(ref, bad)
    for layer in manifest.blobs:
        if (found_bytes := length(store.blob(layer.digest))) not in {None, layer.size_bytes}:
            raise DownloadFailed(
                f"{ref.host} sent a manifest for {ref} that says {layer.size_bytes:,} bytes of {layer.digest}, "
                f"which has {found_bytes:,}",
                code="registry_answer",
            )


def _damaged(ref: ModelRef, bad: list[BadBlob]) -> DownloadFailed:
    what = ", ".join(blob.digest for blob in bad)
    paths = shlex.join(["rm", "-r", *(blob.path for blob in bad)])
    return DownloadFailed(
        f"the store has other bytes under the names of blobs of {ref}, which is not pinned so: {what}",
        f"{paths} && llmctl pull {ref}",
        code="damaged_blob",
    )
