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
from llmctl.errors import LlmctlError, NotFound, Refused
from llmctl.workflows import fit

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.memory.fit import Fit
    from llmctl.core.prediction import Predicted
    from llmctl.core.profile import ModelSpec, Profile
    from llmctl.server import ActiveModel, Running, Server
    from llmctl.system.devices import Device

# Names of the engine's devices begin with their back end: CUDA0, ROCm0, Vulkan0, RPC0.
RPC = "RPC"
TELLING_TOKENS = 32


@dataclass(frozen=True)
class Passed:
    """What the gate found. `predicted` None: not known, so the witnesses decide after the load."""

    verdict: str
    words: str
    predicted: Predicted | None = None


def machine(
    runner: Path | None, environ: Mapping[str, str], profile: Profile, state: Path, version: str | None
) -> tuple[fit.Machine, str, bool]:
    """The GPUs by the engine's own word, else by NVML; whose rules hold; and whether the runtime was learnt here."""
    from llmctl.system import devices, learnt, nvml

    chosen = profile.gpu.devices
    found: Sequence[Device] = devices.list_devices(runner, environ) if runner else ()
    if not found:
        seen = fit.this_machine("cuda", state, version)
        kept = tuple(card for number, card in enumerate(seen.cards) if chosen == "all" or number in chosen)
        return replace(seen, cards=kept), "cuda", False
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
    return fit.Machine(fit.distinct(cards), host(), version), backend, was_learnt


def host() -> Host:
    from llmctl.system.host import memory_bytes

    return Host(*memory_bytes())


def freed(here: fit.Machine, loaded_bytes: int) -> fit.Machine:
    """The machine once the server has let go of what it would evict. With several GPUs nobody says of which."""
    if len(here.cards) != 1 or not loaded_bytes:
        return here
    card = here.cards[0]
    most = card.total_bytes if card.total_bytes is not None else card.free_bytes + loaded_bytes
    return replace(here, cards=(replace(card, free_bytes=min(card.free_bytes + loaded_bytes, most)),))


def check(
    spec: ModelSpec, profile: Profile, here: fit.Machine, backend: str, learnt: bool, store: Path | None,
    environ: Mapping[str, str], *, allow_offload: bool = False,
) -> Passed:  # fmt: skip
    """Raises Refused with the ways out when the model does not lie where the profile wants it."""
    require = "partial" if allow_offload else profile.gpu.require
    if require == "none" or not here.cards:
        return Passed("unknown", "not asked: no GPU is required" if require == "none" else "no GPU is seen")
    try:
        source = fit.find_spec(spec, store, environ)
    except NotFound as error:
        return Passed("unknown", error.message)
    except LlmctlError as error:
        # Whoever pulls it next says why the registry cannot be asked.
        return Passed("unknown", f"its header cannot be read: {error.message}")
    asked = fit.ask(fit.Wish(backend=backend), profile, here, spec)
    model = source.model()
    decision = decide(model, asked)
    if decision.verdict == "no" or (decision.verdict == "partial" and require == "full"):
        typed = Typed(f"llmctl fit {shlex.quote(source.name)}", {"--profile": profile.reference})
        raise refusal(fit.judge(source, asked, here, typed), spec.name)
    return Passed(
        decision.verdict, words(model, decision.verdict), witness.predicted(model, decision, runtime_learnt=learnt)
    )


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
    return Refused(text, "; ".join([*commands, "or accept it with --allow-offload"]), code="does_not_fit")


def admit(
    spec: ModelSpec, profile: Profile, running: Running, server: Server, client: Client, *, allow_offload: bool
) -> Passed:
    """The gate for a server that runs, with what it would evict counted as free."""
    from llmctl.system import process

    environ: Mapping[str, str] = server.environ
    if running.owner != "llmctl" and running.pid:
        environ = process.read_environ(running.pid) or environ
    runner = runner_of(running.pid)
    here, backend, was_learnt = machine(runner, environ, profile, server.paths.state, running.version)
    here = freed(here, sum(model.size_vram_bytes for model in client.ps()))
    store = Path(running.store) if running.store else fit.default_store(environ, server.paths.models)
    return check(spec, profile, here, backend, was_learnt, store, server.environ, allow_offload=allow_offload)


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


def learn(state: Path, version: str, runner_pid: int, buffers_bytes: int) -> None:
    """Note what a process took of its GPU beyond llama.cpp's buffers. With several GPUs nobody says of which."""
    from llmctl.system import learnt, nvml

    inventory = nvml.gpus()
    held = [count for count in nvml.process_bytes(runner_pid).values() if count]
    if len(inventory.gpus) != 1 or len(held) != 1 or held[0] <= buffers_bytes:
        return
    known = learnt.read(state)
    known.add_runtime(version, inventory.driver_version, inventory.gpus[0].name, held[0] - buffers_bytes)
    learnt.write(state, known)


def learn_speed(state: Path, model: ActiveModel | None, tokens: int, tokens_per_second: float | None) -> None:
    """Note how fast an answer came. A short one says more about its start than about its speed."""
    from llmctl.system import learnt

    if model is None or tokens_per_second is None or tokens < TELLING_TOKENS:
        return
    known = learnt.read(state)
    known.add_speed(model.weights_digest, model.place, tokens_per_second)
    learnt.write(state, known)
