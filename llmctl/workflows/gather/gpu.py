"""The GPUs: NVML, the kernel, and where a GPU is wanted and not used, the engine's own list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import parse_host
from llmctl.core.checks import wanted
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.gpu import GpuFacts
from llmctl.system import access, clocks, gpu_detail, gpu_driver, kernel_log, nvml, process
from llmctl.workflows.gather.shell import user_name

if TYPE_CHECKING:
    from llmctl.core.checks.facts.server import ServerFacts
    from llmctl.system.access import Identity
    from llmctl.workflows.gather import Given

VISIBLE = "CUDA_VISIBLE_DEVICES"
# A driver that nothing keeps loaded takes seconds to start; one that hangs must not hang doctor.
ENGINE_SECONDS = 4.0


def gather(given: Given) -> GpuFacts:
    server = server_of(given)
    if server is not None and not parse_host(server.url, "the server's address").local:
        raise NotGathered("the server is on another machine, and so are its GPUs")
    if server is not None and server.forwarded:
        raise NotGathered("the server is behind a forwarder: which GPUs are its cannot be seen")
    seen = gpu_detail.look()
    on_bus, module = gpu_driver.cards_on_the_bus(), gpu_driver.module_version()
    who = account_of(server)
    visible, whose, known = visible_devices(given, server)
    # CUDA makes missing devices when it starts: they are looked at after the engine was asked.
    devices = engine_devices(given, server)
    here = seen.state != "unknown" or bool(on_bus) or module is not None
    return GpuFacts(
        seen.state,
        seen.words,
        seen.driver,
        seen.library,
        module,
        seen.cards,
        on_bus,
        gpu_driver.nodes(len(seen.cards) or on_bus or 0, who),
        devices,
        kernel_log.xids(given.environ) if here else (),
        clocks.slept_seconds(),
        gpu_driver.modules(),
        visible,
        whose,
        known,
        user_name(who.uid),
        nvml.on_the_host(),
    )


def server_of(given: Given) -> ServerFacts | None:
    try:
        return given.of_server
    except Exception:
        # Whatever went wrong with it is told of that area; the cards are looked at all the same.
        return None


def account_of(server: ServerFacts | None) -> Identity:
    """Who runs the server; where none is seen, who asks."""
    found = access.of_process(server.pid) if server is not None and server.pid else None
    return found or access.myself()


def visible_devices(given: Given, server: ServerFacts | None) -> tuple[str | None, str, bool]:
    """CUDA_VISIBLE_DEVICES as the server has it; of this shell where none runs and the next would inherit it. Whose it
    is, and whether it can be seen: no process is without any variable."""
    running = server.process if server is not None else None
    if running is not None:
        return running.environ.get(VISIBLE), f"the server (pid {running.pid})", bool(running.environ)
    try:
        if given.profile.gpu.devices != "all":
            # Then `up` writes it.
            return None, "", True
    except NotGathered:
        pass
    return given.environ.get(VISIBLE), "this shell", True


def engine_devices(given: Given, server: ServerFacts | None) -> tuple[str, ...] | None:
    """Asked only where a GPU is wanted and no model is proved on one: it starts the driver, which takes seconds."""
    from llmctl.system import devices

    try:
        runner = given.of_engine.runner
        if given.profile.gpu.require == "none" or runner is None or on_gpu(given):
            return None
    except NotGathered:
        return None
    environ: Mapping[str, str] = given.environ
    if server is not None and server.pid:
        environ = process.read_environ(server.pid) or environ
    found = devices.asked(Path(runner), environ, ENGINE_SECONDS)
    return None if found is None else tuple(device.name for device in found)


def on_gpu(given: Given) -> bool:
    try:
        return wanted.on_gpu(Facts({"models": given.of_models}))
    except Exception:
        return False
