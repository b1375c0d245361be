"""The server that a profile asks for: the one that is there, where it will do, else one that is started now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.core import serving
from llmctl.core.engine import DEFAULT_VERSION, MINIMUM_VERSION, WITHOUT_VERSION, is_new_enough
from llmctl.core.pin import EnginePin
from llmctl.core.progress import Step
from llmctl.errors import EngineMissing, Refused
from llmctl.system import devices, process, systemd

if TYPE_CHECKING:
    from llmctl.core.address import Address
    from llmctl.core.engine import Engine
    from llmctl.server import Running
    from llmctl.workflows.up import Up

WHOSE = {
    "llmctl": "started by llmctl",
    "systemd": "a unit of systemd",
    "foreign": "not started by llmctl: attached",
}


def serve(up: Up) -> tuple[Running, bool]:
    """The server, and whether it was started now."""
    server = up.services.server
    address = server.address(up.profile)
    owned = server.owned()
    if owned is not None and not suits(up, owned, address):
        refuse_drift(owned)
        up.progress(Step("stop", "stop", detail="a server with other settings"))
        server.stop()
        server.forget()
        up.progress(Step("stop", "stop", "done", "ended the server of the other settings"))
    elif owned is None and server.loose():
        up.progress(Step("stop", "stop", detail="runners whose server was killed"))
        server.stop()
        up.progress(Step("stop", "stop", "done", "ended runners whose server was killed"))
    running = server.find(address)
    if running is not None:
        accept(up, running)
        return running, False
    return start(up, engine_for(up), address), True


def suits(up: Up, owned: process.Process, address: Address) -> bool:
    environ = owned.environ
    return (
        environ.get(serving.SETTINGS) == serving.fingerprint(up.profile)
        and environ.get("OLLAMA_HOST") == address.url.removeprefix("http://")
        and environ.get("OLLAMA_MODELS") == str(up.services.server.store(up.profile))
    )


def refuse_drift(owned: process.Process) -> None:
    """A unit's settings change by installing it again, not by another server."""
    if systemd.around(owned.pid):
        user = " --user" if owned.environ.get("LLMCTL_SCOPE") == "user" else ""
        raise Refused(
            "the unit of the server has other settings than the profile",
            f"{'' if user else 'sudo '}llmctl install-service{user}",
            code="drift",
        )


def accept(up: Up, running: Running) -> None:
    """Refuse a running server that cannot do what the profile asks."""
    wanted = up.profile.engine.version
    if not is_new_enough(running.version):
        raise EngineMissing(
            f"the server at {running.base_url} is Ollama {running.version}; llmctl needs {MINIMUM_VERSION}",
            "upgrade it, or set server.port in the profile to another port",
        )
    if wanted is not None and running.version != wanted and running.owner == "foreign":
        raise Refused(
            f"the server at {running.base_url} is Ollama {running.version}; the profile asks for {wanted}",
            WITHOUT_VERSION,
        )
    detail = f"Ollama {running.version} at {running.base_url}, {WHOSE[running.owner]}"
    up.progress(Step("server", "server", "skipped", detail))


def engine_for(up: Up) -> Engine:
    """An engine for the profile. The hash of a release archive is kept in the lock and holds from then on."""
    profile, library = up.profile, up.services.library(up.services.server.address(up.profile).url)
    pin = library.read_lock(up.lock_path).engine
    same = pin is not None and pin.version == (profile.engine.version or DEFAULT_VERSION)
    engine = up.services.engines.ensure(
        profile.engine.version,
        cpu_only_allowed=profile.gpu.require == "none",
        expected_sha256=pin.release_sha256 if pin and same else None,
        progress=up.progress,
        consent=up.consent,
    )
    found = EnginePin(engine.version, engine.release_sha256)
    if engine.release_sha256 is not None and found != pin:
        library.change_lock(up.lock_path, lambda lock: replace(lock, engine=found))
    if profile.gpu.require != "none":
        require_gpu(up, engine)
    return engine


def require_gpu(up: Up, engine: Engine) -> None:
    """Fail before anything is started or downloaded when the engine sees no GPU at all."""
    found = devices.list_devices(engine.runner, up.services.server.environ)
    if not found:
        up.progress(Step("gpu", "gpu", "failed", "the engine finds none"))
        raise Refused(
            f"the profile requires a GPU and {engine.runner} finds none",
            "llmctl up cpu",
            code="no_gpu",
        )
    names = ", ".join(f"{device.name} {device.description}" for device in found)
    up.progress(Step("gpu", "gpu", "done", names))


def start(up: Up, engine: Engine, address: Address) -> Running:
    up.progress(Step("server", "server", detail=f"starting Ollama {engine.version} at {address.url}"))
    running = up.services.server.start(engine.executable, up.profile, address)
    up.progress(Step("server", "server", "done", f"Ollama {running.version} at {running.base_url}"))
    return running
