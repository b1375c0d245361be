"""A model from a registry: ask what the name stands for, hold it against the pin, then let the engine pull it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.changes import short, side_by_side, size_words
from llmctl.core.drift import Drift, drift
from llmctl.core.memory.ggml import FILE_TYPES
from llmctl.core.pin import Pin
from llmctl.errors import DiskFull, DownloadFailed, EngineError, LlmctlError, NotFound, Refused
from llmctl.library import arrived, created, disk, weights

if TYPE_CHECKING:
    from llmctl.core.manifest import Manifest
    from llmctl.core.model import ModelRef
    from llmctl.core.pin import Layer
    from llmctl.library.obtain import Obtain

TRIES = 4
PAUSE_SECONDS = 0.5


def get(run: Obtain, ref: ModelRef) -> tuple[Pin, str, str]:
    """The pin, the plain name that has it, and a note. See Obtain.get."""
    from llmctl.system import registry

    run.tell("running", f"asking {ref.host} what {ref} is")
    try:
        manifest = registry.manifest(ref, run.environ)
    except registry.RegistryUnreachable as error:
        return without_registry(run, ref, error)
    check_against_pin(run, ref, manifest)
    # The manifest may be there without its blobs.
    missing = frozenset(layer.digest for layer in manifest.blobs if not run.client.has_blob(layer.digest))
    if missing or run.tags().get(str(ref).lower()) != manifest.digest.removeprefix("sha256:"):
        check_config(run, ref, manifest)
        pull(run, ref, manifest)
        check_installed(run, ref, manifest)
    arrived.require_whole(run, ref, manifest, downloaded=missing)
    return new_pin(run, ref, manifest), str(ref), ""


def without_registry(run: Obtain, ref: ModelRef, error: LlmctlError) -> tuple[Pin, str, str]:
    """What is possible offline. Weights that are pinned are never replaced by others."""
    from llmctl.system import starter

    if run.pin is not None and run.pin.source == "registry":
        raise error
    installed = weights.manifest_of(str(ref), run.store) if str(ref).lower() in run.tags() else None
    if installed is not None:
        # Nobody has hashed just now what an earlier pull left.
        arrived.require_whole(run, ref, installed, downloaded=frozenset())
        note = f"{error.message}; pinned {ref} as it is installed"
        return new_pin(run, ref, installed), str(ref), note
    if run.spec.fallback != "starter":
        raise error
    run.tell("running", f"{error.message}: the packaged starter model takes its place")
    return *created.starter_model(run, starter.NAME), run.stand_in_note()


def check_against_pin(run: Obtain, ref: ModelRef, manifest: Manifest) -> None:
    pin = run.pin
    if pin is None or run.update or pin.source != "registry" or pin.manifest_digest == manifest.digest:
        return
    found = drift(pin, manifest)
    raise Refused(
        f"{ref} moved: pinned {short(pin.manifest_digest)} ({size_words(pin.size_bytes)}, {pin.pinned_at[:10]}), "
        f"{ref.host} now has {short(manifest.digest)} ({size_words(size_of(manifest))})\n"
        + "\n".join(side_by_side(pin.manifest_digest, manifest.digest, found.changes)),
        f"llmctl pull {pin.name} --update",
        code="drift",
        document=found,
    )


def check_config(run: Obtain, ref: ModelRef, manifest: Manifest) -> None:
    """Refuse before the download what says itself that it is another quantization."""
    from llmctl.system import registry

    if manifest.weights is None:
        raise Refused(f"{ref} has no GGUF weights, so llmctl cannot serve it", code="no_gguf")
    content = registry.small_blob(ref, manifest.config, run.environ)
    try:
        said = json.loads(content or b"{}").get("file_type")
    except (ValueError, AttributeError):
        return
    # A name that is not one of the GGUF's own cannot be compared; the weights themselves decide then.
    if said in FILE_TYPES.values() and said != run.spec.quantization:
        weights.require(weights.Weights(None, said, None, {}), run.spec.quantization, str(ref))


def pull(run: Obtain, ref: ModelRef, manifest: Manifest) -> None:
    from llmctl.system.registry import plain

    missing = [layer for layer in manifest.blobs if not run.client.has_blob(layer.digest)]
    total = sum(layer.size_bytes for layer in missing)
    disk.require_room(run.store, total - disk.partial_bytes(run.store, missing), str(ref))
    run.ask(str(ref), total, ref.host)
    for again in reversed(range(TRIES)):
        try:
            follow(run, ref, missing, insecure=plain(ref))
            return
        except EngineError as error:
            # Ollama shares one download among its clients: this one joined that of a client that had just left.
            if not again or "context canceled" not in error.message:
                raise translated(error, ref, run.store) from None
        time.sleep(PAUSE_SECONDS)


def follow(run: Obtain, ref: ModelRef, missing: list[Layer], *, insecure: bool) -> None:
    """One pull by the engine, told as it goes."""
    arrived: dict[str, int] = {}
    wanted, total = {layer.digest for layer in missing}, sum(layer.size_bytes for layer in missing)
    for event in run.client.pull(str(ref), insecure=insecure):
        if event.digest in wanted:
            arrived[event.digest] = event.completed_bytes or 0
        elif arrived and event.digest is None:
            # Verifying, writing: the last line about a blob may come before its last byte.
            arrived = {layer.digest: layer.size_bytes for layer in missing}
        run.tell("running", event.status, sum(arrived.values()), total)


def translated(error: EngineError, ref: ModelRef, store: Path | None) -> LlmctlError:
    """A pull's error line as the failure that it is. Texts: facts read in server/images.go, download.go."""
    text = error.message
    if isinstance(full := disk.translated(error, str(ref), store), DiskFull):
        return full
    if "file does not exist" in text:
        return NotFound(f"{ref.host} has no model {ref}", "llmctl list", code="model_not_found")
    if "412" in text or "newer version" in text:
        return DownloadFailed(f"{ref} needs a newer Ollama: {text}", "llmctl engine list", code="engine_too_old")
    return DownloadFailed(f"pulling {ref} failed: {text}", f"llmctl pull {ref}  (goes on where it stopped)")


def check_installed(run: Obtain, ref: ModelRef, manifest: Manifest) -> None:
    """The tag may have moved between the question and the pull."""
    found = run.tags().get(str(ref).lower())
    if found is None:
        raise EngineError(f"{ref} was pulled and the server does not list it", "llmctl logs")
    if f"sha256:{found}" != manifest.digest:
        raise Refused(
            f"{ref} moved while it was pulled: {ref.host} said {manifest.digest[7:19]}, {found[:12]} came",
            f"llmctl pull {ref}",
            code="drift",
            document=Drift(run.spec.name, manifest.digest, f"sha256:{found}"),
        )


def new_pin(run: Obtain, ref: ModelRef, manifest: Manifest) -> Pin:
    from llmctl.system.registry import base_url

    if manifest.weights is None:
        raise Refused(f"{ref} has no GGUF weights, so llmctl cannot serve it", code="no_gguf")
    found = weights.of_model(run.client, str(ref), manifest.weights.digest, run.store)
    weights.require(found, run.spec.quantization, str(ref))
    return run.pinned(
        Pin(
            name=run.spec.name,
            served=str(ref),
            source="registry",
            registry=ref.host,
            manifest_digest=manifest.digest,
            config=manifest.config,
            layers=manifest.layers,
            weights_digest=manifest.weights.digest,
            quantization=run.spec.quantization,
            file_type=found.file_type,
            parameters=found.parameters,
            alias="",
            engine=run.engine_version,
            pinned_at=run.now(),
            from_=f"{base_url(ref)}/manifests/{ref.tag}",
        )
    )


def size_of(manifest: Manifest) -> int:
    return sum(layer.size_bytes for layer in manifest.blobs)
