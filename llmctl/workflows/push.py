"""push: a pinned model to a private registry, through the engine, and the proof that it arrived."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.drift import drift
from llmctl.core.model import DEFAULT_HOST, ModelRef
from llmctl.core.progress import Step
from llmctl.errors import DownloadFailed, EngineError, LlmctlError, NotFound, Refused, UsageError
from llmctl.library.exported import pin_of
from llmctl.library.weights import manifest_of
from llmctl.workflows import store as stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmctl.client import Client
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.progress import Consent, Progress
    from llmctl.server import Running


@dataclass(frozen=True)
class PushResult:
    """`manifest_digest` is what the registry has under `target` now. `changed`: it had not before."""

    name: str
    target: str
    manifest_digest: str
    size_bytes: int
    changed: bool


def push(
    asked: str,
    target: str,
    lock: Lock,
    running: Running,
    client: Client,
    environ: Mapping[str, str],
    *,
    progress: Progress,
    consent: Consent,
) -> PushResult:
    """Have the registry of `target` hold the pinned manifest. Asks first where it holds another one."""
    pin, ref = pin_of(asked, lock), target_ref(target)
    digest = served_digest(pin, named_here(client), running)
    before = registered(ref, environ)
    if before == digest:
        return PushResult(pin.name, str(ref), digest, pin.size_bytes, False)
    if before is not None:
        consent(f"{ref} is {before[7:19]} in its registry. Make it {digest[7:19]}.")
    with stores.changing(running, progress, consent):
        # Another llmctl may have changed the store since.
        tags = named_here(client)
        digest = served_digest(pin, tags, running)
        with named(client, pin.alias, ref, digest, tags):
            upload(client, pin, ref, progress)
    after = registered(ref, environ)
    if after != digest:
        raise Refused(f"{ref.host} has {after or 'nothing'} as {ref}, pushed was {digest}", code="push_differs")
    progress(Step("push", "push", "done", f"{ref} is {digest[7:19]}"))
    return PushResult(pin.name, str(ref), digest, pin.size_bytes, True)


def named_here(client: Client) -> dict[str, str]:
    """Lower-case name to manifest digest (64 hex digits): Ollama compares names blind to case."""
    return {model.name.lower(): model.digest for model in client.tags()}


def target_ref(target: str) -> ModelRef:
    ref = ModelRef.parse(target)
    if ref.host.lower() == DEFAULT_HOST:
        raise UsageError(f"{target} names no registry", "give it: llmctl push MODEL HOST:PORT/NAMESPACE/MODEL:TAG")
    return ref


def served_digest(pin: Pin, tags: Mapping[str, str], running: Running) -> str:
    """The manifest behind the alias, as `sha256:<64 hex>`. It must be the pinned one."""
    found = tags.get(pin.alias.lower())
    if found is None:
        raise NotFound(
            f"the server at {running.base_url} has no {pin.alias}", f"llmctl pull {pin.name}", code="missing"
        )
    # Ollama writes the manifest of a file or the starter itself; another machine's lock names another one.
    if pin.source == "registry" and f"sha256:{found}" != pin.manifest_digest:
        there = manifest_of(pin.alias, Path(running.store) if running.store else None)
        raise Refused(
            f"{pin.alias} is sha256:{found}, pinned is {pin.manifest_digest}",
            f"llmctl repair {pin.name}",
            code="drift",
            document=drift(pin, there, f"sha256:{found}"),
        )
    return f"sha256:{found}"


def registered(ref: ModelRef, environ: Mapping[str, str]) -> str | None:
    """The digest that the registry has under the name; None where it has no such name."""
    from llmctl.system import registry

    try:
        return registry.manifest(ref, environ).digest
    except NotFound:
        return None
    except DownloadFailed as error:
        if error.code == "registry_login":
            raise login_needed(ref) from None
        raise


def login_needed(ref: ModelRef) -> DownloadFailed:
    return DownloadFailed(
        f"{ref.host} wants a login, and Ollama cannot log in to a registry",
        "llmctl export MODEL -o model.tar, then oras login and oras cp --from-oci-layout (docs/moving.md)",
        code="registry_login",
    )


@contextmanager
def named(client: Client, alias: str, ref: ModelRef, digest: str, tags: Mapping[str, str]) -> Iterator[None]:
    """The server has the model under the registry's name inside: the engine pushes what is called so."""
    there = tags.get(str(ref).lower())
    if there is not None and f"sha256:{there}" != digest:
        raise Refused(
            f"the server has another model called {ref} ({there[:12]})", f"llmctl rm {ref}", code="name_taken"
        )
    if there is not None:
        yield
        return
    client.copy(alias, str(ref))
    try:
        yield
    finally:
        client.delete(str(ref))


def upload(client: Client, pin: Pin, ref: ModelRef, progress: Progress) -> None:
    from llmctl.system.registry import plain

    sent: dict[str, int] = {}
    try:
        for event in client.push(str(ref), insecure=plain(ref)):
            if event.digest is not None:
                # Counted again from the start where a blob is sent a second time.
                sent[event.digest] = min(event.completed_bytes or 0, event.total_bytes or 0)
            progress(Step("push", "push", "running", event.status, sum(sent.values()), pin.size_bytes))
    except EngineError as error:
        raise translated(error, ref) from None


def translated(error: EngineError, ref: ModelRef) -> LlmctlError:
    """A push's error line as the failure that it is (ollama v0.34.0 server/upload.go, auth.go)."""
    text = error.message
    if "unauthorized" in text or "realm host" in text or "401" in text:
        return login_needed(ref)
    # A docker-registry whose disk is full says only that an upload is invalid, after a minute of retries.
    return DownloadFailed(
        f"pushing {ref} failed: {text.strip()}",
        f"look at the log and the disk of {ref.host}; the same command sends only what is missing there",
        code="push_failed",
    )
