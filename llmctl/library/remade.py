"""What only a server can make anew: the manifest and the small blobs of a model that it made itself.

Ollama takes a blob that is there for good and never hashes it again, so what is bad is moved out of its sight first,
and comes back where the making fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.profile import ModelSpec
from llmctl.errors import ServerNotRunning
from llmctl.library import created
from llmctl.library.created import Origin
from llmctl.library.obtain import Obtain
from llmctl.system.files import translated

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Pin
    from llmctl.core.progress import Progress
    from llmctl.library.verify import Standing
    from llmctl.system.paths import Paths
    from llmctl.system.store import Store


@dataclass(frozen=True)
class Maker:
    """The server that makes models in this store. `client` is None where none runs; `up` starts one."""

    client: Client | None
    engine_version: str
    paths: Paths
    environ: Mapping[str, str]
    progress: Progress
    up: str

    def make(self, store: Store, pin: Pin, standings: Iterable[Standing], blobs: Iterable[Path], weights: bool) -> None:
        """Make the names `standings` of one pin anew, without their bad `blobs`.

        `weights`: those are bad too, so that the model is made of its file again. What comes out must be the pinned
        weights, or it is Refused. Raises what `ensure` raises, and ServerNotRunning.
        """
        if self.client is None:
            raise ServerNotRunning(f"only a server makes {pin.name} anew, and none runs for {store.path}", self.up)
        standings = list(standings)
        run = self._run(self.client, store, pin)
        with _aside(store, [*blobs, *(store.manifest_path(each.ref) for each in standings)]):
            if any(each.context is None for each in standings):
                if weights:
                    run.get(run.ref)
                else:
                    created.make(run, self._origin(pin), None)
            for each in standings:
                if each.context is not None:
                    replace(run, context=each.context).served(pin, pin.alias, "")

    def _run(self, client: Client, store: Store, pin: Pin) -> Obtain:
        source = pin.from_.rpartition(" ")[0] if pin.source == "file" else str(pin.source)
        return Obtain(
            client=client,
            paths=self.paths,
            environ=self.environ,
            spec=ModelSpec(pin.name, source=source, quantization=pin.quantization),
            pin=pin,
            context=None,
            engine_version=self.engine_version,
            store=store.path,
            update=False,
            progress=self.progress,
            consent=lambda _: None,
        )

    def _origin(self, pin: Pin) -> Origin:
        """The pinned weights themselves: they are whole, so neither the file nor the packages are needed."""
        from llmctl.system import starter

        if pin.source == "starter":
            return Origin("starter", pin.from_, pin.weights_digest, pin.served, starter.TEMPLATE, starter.PARAMETERS)
        return Origin("file", pin.from_, pin.weights_digest, pin.served)


@contextmanager
def _aside(store: Store, paths: Iterable[Path]) -> Iterator[None]:
    """Files out of the server's sight: gone for good when the block ends well, else back in their place."""
    folder = store.make_scratch()
    moved: list[tuple[Path, Path]] = []
    try:
        for path in paths:
            if os.path.lexists(path):
                target = folder / f"aside-{os.urandom(8).hex()}"
                with translated("move", path):
                    path.rename(target)
                moved.append((path, target))
        yield
    except BaseException:
        for path, target in moved:
            if not os.path.lexists(path):
                with translated("move", path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    target.rename(path)
        raise
    finally:
        for _, target in moved:
            _forget(target)


def _forget(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A folder in a blob's place is nobody's blob: it stays in the scratch folder for a person to look at.
        return
    path.unlink(missing_ok=True)
