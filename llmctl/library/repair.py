"""Make what is pinned right again: only what is bad is fetched, beside the old, hashed, and then put in its place."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.digest import digest_of
from llmctl.core.manifest import MEDIA_TYPE
from llmctl.core.pin import Layer
from llmctl.core.progress import Step
from llmctl.errors import LlmctlError, Refused
from llmctl.library import blobs, sources
from llmctl.library.blobs import Wanted
from llmctl.library.sources import ENGINE
from llmctl.library.verify import standings_of
from llmctl.system import registry
from llmctl.system.blob_download import partial_path
from llmctl.system.files import length, translated
from llmctl.system.store import FILE_MODE

if TYPE_CHECKING:
    from llmctl.core.model import ModelRef
    from llmctl.core.pin import Pin
    from llmctl.library.blobs import BadBlob
    from llmctl.library.remade import Maker
    from llmctl.library.sources import Source
    from llmctl.library.verify import Standing, Verification
    from llmctl.system.store import Store
    from llmctl.system.verified import Verified

What = Literal["blob", "manifest"]


@dataclass(frozen=True)
class Mended:
    """Something that is right again, or that a dry run would make so. `name` is a blob's digest, or an alias.

    `fetched_bytes` came over the network in this run; None in a dry run.
    """

    what: What
    name: str
    models: tuple[str, ...]
    source: str
    size_bytes: int | None
    fetched_bytes: int | None


@dataclass(frozen=True)
class NotMended:
    """Something that is still bad: why, and the command that helps."""

    what: What
    name: str
    models: tuple[str, ...]
    reason: str
    hint: str | None


@dataclass
class Mending:
    """One run over the pins of a lock. The caller holds the store meanwhile."""

    store: Store
    pins: tuple[Pin, ...]
    maker: Maker
    notes: Verified
    mended: list[Mended] = field(default_factory=list)
    failed: list[NotMended] = field(default_factory=list)
    errors: list[LlmctlError] = field(default_factory=list)

    def run(self, found: Verification) -> None:
        """Mend what `found` names. What cannot be mended is in `failed`; the rest goes on."""
        anew = []
        kept = sources.kept(found.bad_blobs, self.store)
        for bad in found.bad_blobs:
            choice = sources.sources_of(bad, self.pins, kept)
            if choice[0].kind == "engine":
                anew.append(bad)
            else:
                self._attempt("blob", bad.digest, bad.models, partial(self._mend_blob, bad, choice))
        for link in kept.values():
            link.unlink(missing_ok=True)
        standings = [standing for pin in self.pins for standing in standings_of(self.store, pin)]
        for standing in standings:
            if standing.state != "pinned" and not standing.made_here:
                self._attempt(
                    "manifest", str(standing.ref), (standing.pin.name,), partial(self._mend_manifest, standing)
                )
        for pin in self.pins:
            mine = [each for each in standings if each.pin is pin and each.made_here]
            self._make_anew(pin, mine, [bad for bad in anew if pin.name in bad.models])
        self.notes.save()

    def _attempt(self, what: What, name: str, models: tuple[str, ...], mend: Callable[[], Mended | None]) -> None:
        """One repair of several: its failure is noted and does not end the others."""
        step = Step(f"repair {name}", f"{what} {name[7:19]}" if what == "blob" else name)
        try:
            done = mend()
        except LlmctlError as error:
            self.maker.progress(_with(step, "failed", error.message))
            self.failed.append(NotMended(what, name, models, error.message, error.hint))
            self.errors.append(error)
            return
        if done is None:
            self.maker.progress(_with(step, "skipped", "it is whole meanwhile"))
            return
        self.maker.progress(_with(step, "done", f"from {done.source}"))
        self.mended.append(done)

    def _mend_blob(self, bad: BadBlob, choice: list[Source]) -> Mended | None:
        path = self.store.blob(bad.digest)
        if bad.problem == "unreadable":
            # The right to read may be all that it lacks.
            _allow(path)
        wanted = Wanted(bad.digest, bad.expected_bytes, bad.media_types, bad.models)
        still, stamp = blobs.check_one(self.store, wanted)
        if still is None and stamp is not None:
            self.notes.add(bad.digest, stamp)
            return None
        if still is not None and still.remedy:
            raise LlmctlError(f"cannot read {path}: {still.reason}", still.remedy, code="permission_denied")
        source, fetched = self._bring(bad, choice)
        return Mended("blob", bad.digest, bad.models, source.text, bad.expected_bytes, fetched)

    def _bring(self, bad: BadBlob, choice: list[Source]) -> tuple[Source, int]:
        """From the first source that has it."""
        errors: list[LlmctlError] = []
        for source in choice:
            if source.kind == "engine":
                continue
            try:
                return source, self._bring_from(source, bad)
            except LlmctlError as error:
                errors.append(error)
        raise sources.first(errors)

    def _bring_from(self, source: Source, bad: BadBlob) -> int:
        step = Step(f"repair {bad.digest}", f"blob {bad.digest[7:19]}")

        def on_bytes(done: int, total: int | None) -> None:
            self.maker.progress(_with(step, "running", source.text, done, total))

        self.maker.progress(_with(step, "running", source.text))
        layer = self._layer(bad, source.pin)
        paths, environ = self.maker.paths, self.maker.environ
        brought = sources.bring(source, layer, self.store, paths.cache, environ, on_bytes)
        self._clear_folder(self.store.blob(bad.digest))
        self.store.place(brought.path, bad.digest)
        self.notes.add(bad.digest, blobs.stamp_of(self.store.blob(bad.digest)))
        return brought.fetched_bytes

    def _layer(self, bad: BadBlob, pin: Pin) -> Layer:
        known = next((layer for layer in pin.blobs if layer.digest == bad.digest), None)
        return known or Layer(bad.media_types[0], bad.digest, bad.expected_bytes or 0)

    def _clear_folder(self, path: Path) -> None:
        """A rename does not replace a folder. Nobody knows what it holds, so it is kept in the scratch folder."""
        if path.is_dir() and not path.is_symlink():
            with translated("move", path):
                path.rename(self.store.make_scratch() / f"aside-{os.urandom(8).hex()}")

    def _mend_manifest(self, standing: Standing) -> Mended | None:
        pin = standing.pin
        broken = {failed.name for failed in self.failed} & {layer.digest for layer in pin.blobs}
        if broken:
            raise Refused(f"the manifest of {pin.alias} comes when its blobs are whole", code="blobs_first")
        content, source, fetched = self._manifest_of(pin)
        path = self.store.manifest_path(standing.ref)
        self._clear_folder(path)
        self.store.write_manifest(standing.ref, content)
        return Mended("manifest", str(standing.ref), (pin.name,), source, len(content), fetched)

    def _manifest_of(self, pin: Pin) -> tuple[bytes, str, int]:
        """The pinned bytes, from where they are nearest, and how many came over the network."""
        for name, content in self._kept_manifests():
            if digest_of(content) == pin.manifest_digest:
                return content, f"{name} in the store", 0
        if digest_of(written := as_registries_write(pin)) == pin.manifest_digest:
            return written, "the lock, which has every part of it", 0
        ref = sources.origin(pin)
        content = registry.pinned_manifest(ref, pin.manifest_digest, self.maker.environ)
        return content, ref.full.rpartition(":")[0], len(content)

    def _kept_manifests(self) -> Iterable[tuple[ModelRef, bytes]]:
        for ref in self.store.names():
            try:
                content = self.store.manifest(ref)
            except LlmctlError:
                continue
            if content is not None:
                yield ref, content

    def _make_anew(self, pin: Pin, standings: list[Standing], bad: list[BadBlob]) -> None:
        """Have the server make what it made before: every name of the pin that is bad or has a bad blob."""
        still = {each.digest for each in bad if not self._whole(each)}
        touched = [each for each in standings if each.state != "pinned" or still & _digests(each)]
        if pin.weights_digest in still:
            touched = standings
        if not touched:
            return
        paths = [self.store.blob(digest) for digest in sorted(still)]
        weights = pin.weights_digest in still
        make = partial(self._made, pin, touched, paths, weights)
        self._attempt("manifest", str(touched[0].ref), (pin.name,), make)

    def _made(self, pin: Pin, standings: list[Standing], paths: list[Path], weights: bool) -> Mended:
        self.maker.make(self.store, pin, standings, paths, weights)
        return Mended("manifest", str(standings[0].ref), (pin.name,), ENGINE, None, 0)

    def _whole(self, bad: BadBlob) -> bool:
        wanted = Wanted(bad.digest, bad.expected_bytes, bad.media_types, bad.models)
        return blobs.check_one(self.store, wanted)[0] is None


def planned(found: Verification, pins: Iterable[Pin]) -> tuple[Mended, ...]:
    """What a run would mend, and from where. Nothing is asked and nothing is changed."""
    pins, elsewhere = tuple(pins), sources.misplaced(found.bad_blobs)
    plan = []
    for bad in found.bad_blobs:
        source = sources.sources_of(bad, pins, elsewhere)[0]
        plan.append(Mended("blob", bad.digest, bad.models, source.text, bad.expected_bytes, None))
    for manifest in found.bad_manifests:
        pin = next(pin for pin in pins if pin.name == manifest.model)
        source_text = ENGINE if manifest.expected is None else f"the store, the lock, or {sources.origin(pin).full}"
        plan.append(Mended("manifest", manifest.alias, (manifest.model,), source_text, None, None))
    return tuple(plan)


@dataclass(frozen=True)
class Need:
    """Bytes that a run would get over the network, and those that it would write: less what is there already."""

    download_bytes: int
    write_bytes: int


def need(found: Verification, pins: Iterable[Pin], store: Store) -> Need:
    pins, elsewhere = tuple(pins), sources.misplaced(found.bad_blobs)
    download = write = 0
    for bad in found.bad_blobs:
        source = sources.sources_of(bad, pins, elsewhere)[0]
        if source.kind == "store":
            continue
        there = (length(partial_path(store.scratch, bad.digest)) or 0) if source.kind == "registry" else 0
        missing = max(0, (bad.expected_bytes or 0) - there)
        write += missing
        download += missing if source.fetches else 0
    return Need(download, write)


def as_registries_write(pin: Pin) -> bytes:
    """A manifest out of the lock's layers, as registry.ollama.ai writes them. Its digest tells whether it is right."""

    def entry(layer: Layer) -> dict[str, object]:
        return {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size_bytes}

    document = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": entry(pin.config) if pin.config else None,
        "layers": [entry(layer) for layer in pin.layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _digests(standing: Standing) -> set[str]:
    return {layer.digest for layer in standing.manifest.blobs} if standing.manifest else set()


def _allow(path: Path) -> None:
    """Let everybody read a file, not what a link in its place leads to. It cannot be opened to that end: it may not be
    read yet."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.chmod(f"/proc/self/fd/{descriptor}", FILE_MODE)  # noqa: PTH101
        finally:
            os.close(descriptor)


def _with(
    step: Step,
    state: Literal["running", "done", "skipped", "failed"],
    detail: str,
    completed: int | None = None,
    total: int | None = None,
) -> Step:
    return Step(step.id, step.title, state, detail, completed, total)
