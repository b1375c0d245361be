"""The models of one server: get, pin, remove. What is pinned is served from a private alias."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock
    from llmctl.core.profile import ModelSpec
    from llmctl.core.progress import Consent, Progress
    from llmctl.library.obtain import Pinned
    from llmctl.library.removal import Removed
    from llmctl.library.usage import KnownLock
    from llmctl.system.paths import Paths


class Library:
    """The models behind `client`. `environ` is what pip and the registry's proxies are read from."""

    def __init__(self, client: Client, paths: Paths, environ: Mapping[str, str] = os.environ) -> None:
        self.client = client
        self.paths = paths
        self.environ = environ

    def ensure(
        self,
        spec: ModelSpec,
        lock: Lock,
        *,
        server_context: int,
        engine_version: str,
        context: int | None = None,
        store: Path | None = None,
        update: bool = False,
        progress: Progress,
        consent: Consent,
    ) -> Pinned:
        """Have the model that `spec` asks for, as the lock pins it, under its alias. One /api/tags when it is there.

        `context` (default: the spec's) gets an alias of its own where it differs from `server_context`.
        `store` is the server's model folder where it is on this machine. `update` lets the pin move.
        Nothing is written to the lock file here.

        Raises Refused when the tag moved, the weights differ or the quantization is another one; NotFound,
        DownloadFailed, DiskFull, ConsentNeeded, EngineError.
        """
        from llmctl.library.obtain import Obtain

        wanted, pin = context or spec.context, lock.pin(spec.name)
        if pin is not None:
            # Two spellings are one model, and the lock's is the one that its alias was made of.
            spec = replace(spec, name=pin.name)
        return Obtain(
            client=self.client,
            paths=self.paths,
            environ=self.environ,
            spec=spec,
            pin=pin,
            context=wanted if wanted != server_context else None,
            engine_version=engine_version,
            store=store,
            update=update,
            progress=progress,
            consent=consent,
        ).run()

    def remove(self, name: str, lock: Lock, consent: Consent, others: Iterable[KnownLock] = ()) -> tuple[Removed, Lock]:
        """Unload and delete a model with its aliases; what was removed, and the lock without it.

        Asks first when it is pinned, by `lock` or by one of `others`. NotFound when neither the server nor the
        lock has it.
        """
        from llmctl.library.removal import removal

        return removal(self.client, name, lock, consent, others)

    def read_lock(self, path: Path) -> Lock:
        """The lock at `path`; an empty one when there is none. LockError when it is damaged."""
        from llmctl.library import lock_file

        return lock_file.read(path)

    def change_lock(self, path: Path, change: Callable[[Lock], Lock]) -> Lock:
        """Read, change and write, with no other llmctl in between. `prune` knows the lock from then on."""
        from llmctl.library import usage

        return usage.change(self.paths.state, path, change)

    def know_lock(self, path: Path, lock: Lock) -> None:
        """Keep in mind that the lock at `path` pins what it pins, so that `prune` keeps it."""
        from llmctl.library import usage

        usage.note(self.paths.state, path, lock)
