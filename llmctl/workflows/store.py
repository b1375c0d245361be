"""Which model store a verb works on, whether its server runs, and which other stores this machine has."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.model import ModelRef
from llmctl.core.progress import Step
from llmctl.errors import LlmctlError, NotFound, ServerNotRunning
from llmctl.system.store import Store

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.core.progress import Consent, Progress
    from llmctl.server import Running, Server
    from llmctl.system.paths import Paths

# Where installers and distributions put the store of the service's user.
SYSTEM_STORES = (
    "/usr/share/ollama/.ollama/models",
    "/var/lib/ollama/.ollama/models",
    "/var/lib/ollama/models",
    "/var/lib/ollama",
    "/var/snap/ollama/common/models",
)


@dataclass(frozen=True)
class Place:
    """A store, in words why it is this one, and the server that serves it where one runs."""

    store: Store
    why: str
    running: Running | None


@dataclass(frozen=True)
class OtherStore:
    """Another model store of this machine. `models` is None where this user may not look into it."""

    path: str
    models: int | None


def place(server: Server, profile: Profile, given: Path | None = None) -> Place:
    """The store of the profile's server, running or not; `given` wins.

    LlmctlError where a server runs whose folder nothing tells: it is another user's, or on another machine.
    """
    running = found(server, profile)
    if given is not None:
        path = given.expanduser().absolute()
        if not path.is_dir():
            raise NotFound(f"no model store at {path}", f"ls -ld {path}")
        return Place(Store(path), "given with --store", running if running and serves(running, path) else None)
    if running is None:
        return Place(Store(server.store(profile)), "no server runs; its next one would use it", None)
    if running.store is None:
        alike = next((path for path in usual_places(server) if serves(running, path)), None)
        if alike is not None:
            return Place(Store(alike), f"it has the very models that the server at {running.base_url} lists", running)
        raise LlmctlError(
            f"the server at {running.base_url} does not tell its model folder",
            "give it with --store, for example --store /usr/share/ollama/.ollama/models",
            code="store_unknown",
        )
    return Place(Store(Path(running.store)), f"the server at {running.base_url} uses it", running)


@contextmanager
def turn(store: Store, waiting: Callable[[], None], consent: Consent) -> Iterator[Consent]:
    """Keep other llmctl from changing the store meanwhile.

    Inside, ask with what this yields: while a person thinks, the store is free for others, and may be another
    afterwards.
    """
    with ExitStack() as held:
        held.enter_context(store.changing(waiting))

        def ask(question: str) -> None:
            held.close()
            consent(question)
            held.enter_context(store.changing(waiting))

        yield ask


@contextmanager
def changing(running: Running, progress: Progress, consent: Consent) -> Iterator[Consent]:
    """The same for a server's store, where that is a folder that can be seen from here."""
    if running.store is None or not os.access(running.store, os.R_OK):
        yield consent
        return
    waited: list[str] = []

    def waiting() -> None:
        waited.append("another llmctl is changing this store")
        progress(Step("wait", "wait", detail=waited[0]))

    with turn(Store(Path(running.store)), waiting, consent) as ask:
        if waited:
            progress(Step("wait", "wait", "done", "the other llmctl has ended"))
        yield ask


def usual_places(server: Server, candidates: Iterable[str] = SYSTEM_STORES) -> tuple[Path, ...]:
    """Where model stores use to be, whether there is one or not."""
    usual = Path(server.environ.get("HOME", "~")).expanduser() / ".ollama" / "models"
    return (usual, server.paths.models, *map(Path, candidates))


def found(server: Server, profile: Profile) -> Running | None:
    """The profile's server; None where none answers. What else holds its port is no matter here."""
    if profile.private and server.owned() is None:
        return None
    try:
        return server.find(server.address(profile))
    except ServerNotRunning:
        return None


def same(one: str | None, other: Path) -> bool:
    return one is not None and Path(one).resolve() == other.resolve()


def serves(running: Running, path: Path) -> bool:
    """Whether a server's models are those in `path`: by its folder, or where nothing tells that, by what it lists."""
    if running.store is not None:
        return same(running.store, path)
    from llmctl.client import Client
    from llmctl.library.inventory import from_server, from_store

    try:
        here = {(each.name, each.digest) for each in from_store(Store(path)) if each.manifest}
        return bool(here) and here == {(each.name, each.digest) for each in from_server(Client(running.base_url))}
    except LlmctlError:
        return False


def having(server: Server, chosen: Path, name: str, candidates: Iterable[str] = SYSTEM_STORES) -> tuple[str, ...]:
    """The other stores of this machine that have the model `name`, as far as this user may look into them."""
    found = []
    for other in others(server, chosen, candidates):
        try:
            if Store(Path(other.path)).manifest(ModelRef.parse(name)) is not None:
                found.append(other.path)
        except LlmctlError:
            continue
    return tuple(found)


def elsewhere(
    error: NotFound, server: Server, chosen: Path, name: str, candidates: Iterable[str] = SYSTEM_STORES
) -> NotFound:
    """The error that `name` is not in the store `chosen`; where another store has it, saying so."""
    found = having(server, chosen, name, candidates)
    if not found:
        return error
    message = f"{error.message}: the store {chosen} has none; {' and '.join(found)} has it"
    return NotFound(message, f"llmctl list --store {found[0]}", code=error.code)


def others(server: Server, chosen: Path, candidates: Iterable[str] = SYSTEM_STORES) -> tuple[OtherStore, ...]:
    """The stores beside `chosen` that have models or may not be looked into: two of them are why models "are gone"."""
    seen, result = {chosen.resolve()}, []
    for path in usual_places(server, candidates):
        try:
            known = path.resolve()
            if known in seen or not (path / "manifests").is_dir():
                continue
            seen.add(known)
            models: int | None = sum(1 for _ in Store(path).names())
        except (OSError, LlmctlError):
            models = None
        if models != 0:
            result.append(OtherStore(str(path), models))
    return tuple(result)


def as_root(verb: str, store: Path, profile: Profile, paths: Paths) -> str:
    """The same run with root's rights."""
    return f"{sudo(paths)} {verb} {shlex.join(['--profile', profile.reference, '--store', str(store)])}"


def sudo(paths: Paths) -> str:
    """How this user calls llmctl as root: sudo knows neither their folders nor their PATH."""
    folders = (("LLMCTL_CONFIG_DIR", paths.config), ("LLMCTL_STATE_DIR", paths.state))
    given = " ".join(f"{name}={shlex.quote(str(path))}" for name, path in folders)
    return f'sudo env {given} "$(command -v llmctl)"'
