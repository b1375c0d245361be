"""Whether a model may be downloaded or loaded: the same answer that `fit` gives, before anything is spent."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.memory import witness
from llmctl.core.memory.decide import Card, Host, decide
from llmctl.core.memory.fit import DEFAULT_VERSION, Typed
from llmctl.core.memory.needs import Model
from llmctl.core.placement import Witnesses
from llmctl.errors import LlmctlError, Refused
from llmctl.server import default_store
from llmctl.system import process
from llmctl.workflows import fit

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.memory.fit import Fit
    from llmctl.core.prediction import Predicted
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.core.server_state import ActiveModel
    from llmctl.server import Running, Server
    from llmctl.system.devices import Device

# Names of the engine's devices begin with their back end: CUDA0, ROCm0, Vulkan0, RPC0.
RPC = "RPC"


@dataclass(frozen=True)
class Passed:
    """What the gate found. `predicted` None: not known, so the witnesses decide after the load."""

    verdict: str
    words: str
    predicted: Predicted | None = None


@dataclass(frozen=True)
class Seen:
    """The GPUs; whose rules hold for them; and whether what CUDA takes beside the buffers was learnt here."""

    machine: fit.Machine
    backend: str
    learnt: bool


def look(runner: Path | None, environ: Mapping[str, str], profile: Profile, state: Path, version: str | None) -> Seen:
    """The GPUs by the engine's own word, else by NVML."""
    from llmctl.system import devices, learnt, nvml

    chosen = profile.gpu.devices
    found: Sequence[Device] = devices.list_devices(runner, environ) if runner else ()
    if not found:
        seen = fit.this_machine("cuda", state, version)
        kept = tuple(card for number, card in enumerate(seen.cards) if chosen == "all" or number in chosen)
        return Seen(replace(seen, cards=kept), "cuda", learnt=False)
    backend = "rpc" if all(device.name.startswith(RPC) for device in found) else "cuda"
    driver = nvml.gpus().driver_version if backend == "cuda" else None
    known, cards, was_learnt = learnt.read(state), [], backend == "rpc"
    for number, device in enumerate(found):
        if chosen != "all" and number not in chosen:
            continue
        name = device.description or device.name
        seen_runtime = known.runtime_bytes(version or DEFAULT_VERSION, driver, name)
        was_learnt |= seen_runtime is not None
        runtime = fit.runtime_bytes(backend, seen_runtime)
        # The engine has paid the runtime before it says what is free.
        cards.append(Card(name, device.total_bytes, device.free_bytes + runtime, runtime))
    return Seen(fit.Machine(fit.distinct(cards), host(), version), backend, was_learnt)


def host() -> Host:
    from llmctl.system.host import memory_bytes

    return Host(*memory_bytes())


def freed(seen: Seen, loaded_bytes: int) -> Seen:
    """The same once the server has let go of what it would evict. With several GPUs nobody says of which."""
    here = seen.machine
    if len(here.cards) != 1 or not loaded_bytes:
        return seen
    card = here.cards[0]
    most = card.total_bytes if card.total_bytes is not None else card.free_bytes + loaded_bytes
    more = replace(card, free_bytes=min(card.free_bytes + loaded_bytes, most))
    return replace(seen, machine=replace(here, cards=(more,)))


def check(spec: ModelSpec, source: fit.Source, profile: Profile, seen: Seen, require: str) -> Passed:
    """Raises Refused with the ways out when the model does not lie where it is required."""
    asked = fit.ask(fit.Wish(backend=seen.backend), profile, seen.machine, spec)
    model = source.model()
    decision = decide(model, asked)
    if decision.verdict == "no" or (decision.verdict == "partial" and require == "full"):
        typed = Typed(f"llmctl fit {shlex.quote(source.name)}", {"--profile": shlex.quote(profile.reference)})
        raise refusal(fit.judge(source, asked, seen.machine, typed), spec.name)
    predicted = witness.predicted(model, decision, runtime_learnt=seen.learnt)
    return Passed(decision.verdict, words(model, decision.verdict), predicted)


def words(model: Model, verdict: str) -> str:
    if verdict == "unknown":
        return f"the compute buffers of {model.shape.architecture} are not known: the load shows it"
    return "fits on the GPU" if verdict == "full" else "fits in part"


def refusal(result: Fit, name: str) -> Refused:
    refused = next((note for note in result.notes if note.startswith("the engine would not start")), None)
    if refused:
        return Refused(f"{name}: {refused}", f"llmctl fit {shlex.quote(result.model.name)}", code="does_not_fit")
    gpu = result.devices[0]
    layers = result.layers
    free = gpu.free_bytes or 0
    text = (
        f"{name} does not fit: {layers.on_gpu} of {layers.total} layers would lie on {gpu.name} "
        f"({free / (1 << 30):.1f} GiB free) at a context of {result.context:,}"
    )
    if result.ways_out:
        text += "; it would with " + ", or ".join(way.words for way in result.ways_out)
    commands = [way.command for way in result.ways_out] or ["llmctl profiles"]
    if result.verdict == "partial":
        commands.append("or accept it with --allow-offload")
    return Refused(text, "; ".join(commands), code="does_not_fit")


def admit(
    spec: ModelSpec,
    profile: Profile,
    running: Running,
    server: Server,
    client: Client,
    *,
    runs: bool = False,
) -> Passed:
    """The gate for a server that runs, with what it would evict counted as free.

    A model that `runs` is not refused, and for it no registry is asked: the proof tells where it lies.
    """
    require = profile.gpu.require
    if require == "none":
        return Passed("unknown", "not asked: no GPU is required")
    environ: Mapping[str, str] = server.environ
    if running.owner != "llmctl" and running.pid:
        environ = process.read_environ(running.pid) or environ
    seen = look(runner_of(running.pid), environ, profile, server.paths.state, running.version)
    if not seen.machine.cards:
        return Passed("unknown", "no GPU is seen")
    seen = freed(seen, sum(model.size_vram_bytes for model in client.ps()))
    store = Path(running.store) if running.store else default_store(environ, server.paths.models)
    try:
        source = fit.find_spec(spec, store, server.environ, here_only=runs)
    except LlmctlError as error:
        # Whoever pulls it next says why the registry cannot be asked.
        return Passed("unknown", f"its header cannot be read: {error.message}")
    try:
        return check(spec, source, profile, seen, require)
    except Refused as error:
        if runs:
            return Passed("partial", error.message)
        raise


def runner_of(server_pid: int | None) -> Path | None:
    """The runner beside the program of a server that runs; None where that cannot be seen."""
    if server_pid is None:
        return None
    try:
        program = Path(f"/proc/{server_pid}/exe").readlink()
    except OSError:
        return None
    runner = program.parent.parent / "lib" / "ollama" / "llama-server"
    return runner if runner.is_file() else None


def learn(state: Path, version: str, model: ActiveModel) -> None:
    """Note what a load came to beside its prediction, where NVML tells, and what the process took of its GPU beyond
    llama.cpp's buffers, where the runner's lines tell. With several GPUs nobody says of which. What a projector holds
    beside its weights is not known, so that a load with one teaches nothing.
    """
    from llmctl.system import learnt, nvml

    seen = Witnesses(None, model.buffers)
    printed = seen.buffer_bytes
    projector = seen.projector_bytes is not None or (model.predicted is not None and model.predicted.projector_bytes)
    if not model.runner_pid or not printed or projector:
        return
    inventory = nvml.gpus()
    told = list(nvml.process_bytes(model.runner_pid).values())
    held = [count for count in told if count]
    if not held or None in told or sum(held) <= printed:
        return
    known = learnt.read(state)
    if model.predicted is not None:
        known.add_residual(
            version, inventory.driver_version, model.weights_digest, model.predicted.total_bytes, sum(held)
        )
    if len(inventory.gpus) == 1:
        known.add_runtime(version, inventory.driver_version, inventory.gpus[0].name, held[0] - printed)
    learnt.write(state, known)
