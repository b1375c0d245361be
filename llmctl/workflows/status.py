"""status: what is true now, from the server, the runner and the GPU; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import parse_host
from llmctl.core.digest import digest_of
from llmctl.core.model import ModelRef, moved
from llmctl.core.prediction import findings
from llmctl.errors import LlmctlError, ServerNotRunning
from llmctl.residency import Host, Residency, Wanted
from llmctl.system import process, systemd
from llmctl.system.store import Store
from llmctl.workflows import pause

if TYPE_CHECKING:
    from llmctl.client import Client, LoadedModel
    from llmctl.core.placement import Require
    from llmctl.core.server_state import ActiveModel, ServerState
    from llmctl.server import Server
    from llmctl.workflows.service import ServiceStatus


@dataclass(frozen=True)
class ModelStatus:
    """One pinned model. Bytes and times are None where nothing tells them.

    `predicted_bytes` is what `fit` said that the GPUs would hold, `claimed_bytes` /api/ps's, `measured_bytes`
    NVML's of the runner, `runner_bytes` the runner's resident host memory.
    """

    name: str
    served: str
    alias: str
    resident: bool
    verdict: str
    place: str
    reasons: tuple[str, ...]
    manifest_digest: str
    weights_digest: str
    quantization: str
    context: int | None
    claimed_bytes: int | None
    claimed_gpu_bytes: int | None
    measured_bytes: int | None
    runner_bytes: int | None
    runner_pid: int | None
    predicted_bytes: int | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """The whole of it. `state` is `running` or `stopped`; `others` are loaded models that no pin names."""

    state: str
    owner: str | None
    profile: str | None
    base_url: str | None
    engine_version: str | None
    pid: int | None
    uptime_seconds: float | None
    context: int | None
    parallel: int | None
    kv_cache: str | None
    verdict: str
    models: tuple[ModelStatus, ...] = ()
    others: tuple[str, ...] = ()
    note: str | None = None
    service: ServiceStatus | None = None

    @property
    def good(self) -> bool:
        """Whether every pinned model is resident and proved."""
        return self.state == "running" and bool(self.models) and all(m.verdict == "proved" for m in self.models)


def stopped(note: str | None, state: ServerState | None) -> Status:
    return Status(
        state="stopped",
        owner=None,
        profile=state.profile if state else None,
        base_url=state.base_url if state else None,
        engine_version=None,
        pid=None,
        uptime_seconds=None,
        context=None,
        parallel=None,
        kv_cache=None,
        verdict="refuted",
        note=note,
    )


def status(server: Server, client: Client | None, state: ServerState | None) -> Status:
    """The state of the server that the last `up` recorded; without a record, of the one at `client`."""
    leased = pause.note(server.paths.runtime)
    if client is None:
        return stopped(leased, state)
    try:
        version, loaded = client.version(), client.ps()
    except ServerNotRunning as error:
        return stopped("; ".join(filter(None, [error.message, leased])), state)
    if state is None:
        return unrecorded(client, version, loaded, server.owned())
    owned = server.owned() if state.owner != "foreign" else None
    found = owned or foreign(state.base_url)
    host = Host(owned is not None, found.pid if found else None)
    models = tuple(model_status(model, loaded, host, state.require, state.store) for model in state.models)
    known = {digest for model in state.models for digest in digests_of(model)}
    pid = owned.pid if owned else None
    return Status(
        state="running",
        owner=owner_of(owned),
        profile=state.profile,
        base_url=state.base_url,
        engine_version=version,
        pid=pid,
        uptime_seconds=process.uptime_seconds(pid) if pid else None,
        context=state.context,
        parallel=state.parallel,
        kv_cache=state.kv_cache,
        verdict="proved" if models and all(model.verdict == "proved" for model in models) else "refuted",
        models=models,
        others=tuple(model.name for model in loaded if model.digest not in known),
        note=leased,
    )


def foreign(base_url: str) -> process.Process | None:
    """The process of a server that llmctl did not start, where this machine shows it."""
    address = parse_host(base_url, "the server's address")
    return process.server_at(address.port) if address.local else None


def owner_of(owned: process.Process | None) -> str:
    if owned is None:
        return "foreign"
    return "systemd" if systemd.around(owned.pid) else "llmctl"


def unrecorded(client: Client, version: str, loaded: list[LoadedModel], owned: process.Process | None) -> Status:
    """A server that answers, and that no `up` has recorded."""
    return Status(
        state="running",
        owner=owner_of(owned),
        profile=None,
        base_url=client.base_url,
        engine_version=version,
        pid=None,
        uptime_seconds=None,
        context=None,
        parallel=None,
        kv_cache=None,
        verdict="unverified",
        others=tuple(model.name for model in loaded),
        note="llmctl up has not been run against it",
    )


def model_status(
    model: ActiveModel, loaded: list[LoadedModel], host: Host, require: Require, store: str | None
) -> ModelStatus:
    """The proof as it stands. What `up` read in the runner's log holds as long as that runner lives."""
    wanted = Wanted(digests_of(model), model.weights_digest, model.context, require)
    found = Residency().prove(
        loaded, wanted, host, lambda pid: model.buffers if pid is not None and pid == model.runner_pid else None
    )
    entry, pid = found.entry, found.runner_pid
    claimed = entry is not None and entry.size_bytes > 0
    gpu_bytes = entry.size_vram_bytes if entry and claimed else None
    odd: tuple[str, ...] = ()
    if model.predicted is not None and entry is not None:
        odd = findings(model.predicted, found.witnesses, gpu_bytes)
    odd += moved_name(model, store)
    return ModelStatus(
        name=model.name,
        served=model.served,
        alias=model.alias,
        resident=entry is not None and not found.witnesses.runner_ended,
        verdict=found.proof.verdict,
        place=found.proof.place,
        reasons=found.proof.reasons,
        manifest_digest=model.manifest_digest,
        weights_digest=model.weights_digest,
        quantization=model.quantization,
        context=entry.context_length if entry else None,
        claimed_bytes=entry.size_bytes if entry and claimed else None,
        claimed_gpu_bytes=gpu_bytes,
        measured_bytes=found.witnesses.measured_bytes,
        runner_bytes=process.resident_bytes(pid) if pid else None,
        runner_pid=pid,
        predicted_bytes=model.predicted.total_bytes if model.predicted else None,
        findings=odd,
    )


def moved_name(model: ActiveModel, store: str | None) -> tuple[str, ...]:
    """Whoever asks the server for the plain name gets what that stands for in the store, pinned or not."""
    if store is None or model.source != "registry":
        return ()
    try:
        content = Store(Path(store)).manifest(ModelRef.parse(model.served))
    except LlmctlError:
        return ()
    if content is None or (found := digest_of(content)) == model.manifest_digest:
        return ()
    return (moved(model.served, found, model.name),)


def digests_of(model: ActiveModel) -> frozenset[str]:
    return frozenset(digest.removeprefix("sha256:") for digest in (model.manifest_digest, model.served_digest))
