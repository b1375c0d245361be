"""The GPU comes late, dies, is not used, or its driver says that something is wrong. The GPU is llama.cpp's RPC device,
the driver a library that answers as a script says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.parts import nvml
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import NOTHING_FITS
from tests.service.conftest import NVML, SHARED
from tests.service.faults.served import Served, fault
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model", "rpc", "nvml")


@pytest.fixture
def served(gpu_served: Served) -> Served:
    return gpu_served


def on_gpu(served: Served) -> bool:
    return any(model["size_vram"] == model["size"] > 0 for model in served.api("/api/ps")["models"])


@fault(
    what="the GPU is absent at boot and comes later",
    how="the stand-in is gone, the container boots, the stand-in comes back",
    happens="the machine boots without waiting; the engine's unit waits for a GPU that its runner names, and starts "
    "without a failed attempt; the guard says what it waits for",
    again="a second, the start of the engine, one look and one load after the GPU came",
)
def test_the_gpu_comes_late(served: Served) -> None:
    container = served.container
    container.poweroff()
    served.pull_out()
    container.boot(settled=False)
    reached = ("systemctl", "is-active", "multi-user.target")
    waits = "the engine names no GPU yet"
    try:
        container.wait(lambda: container.run(*reached, check=False).returncode == 0, 60, "the machine to be up")
        served.until("word of what it waits for", lambda: waits in str(container.journal(ENGINE_UNIT)[-20:]))
        assert container.unit(ENGINE_UNIT)["ActiveState"] == "activating"
        served.until("the guard to say what the engine waits for", lambda: waits in served.words)
        assert served.guard["ActiveState"] == "activating"
        assert (served.note["reason"], served.note["degraded"]) == ("loading", False)
        served.says(ENGINE_UNIT)
        assert not served.resident
    finally:
        with served.away("a late GPU", lambda: True):
            served.plug_in()
    assert container.unit(ENGINE_UNIT)["NRestarts"] == "0"
    assert on_gpu(served)


@fault(
    what="the GPU dies under load",
    how="the stand-in is killed while a client is being answered; it comes back after a while",
    happens="the runner ends; the guard tries to load and says why that fails, then starts the engine anew, whose unit "
    "waits for a GPU",
    again="the start of the engine, one look and one load after the GPU came",
)
def test_the_gpu_dies_under_load(served: Served) -> None:
    since = len(served.events())

    def ask() -> None:
        with suppress(AssertionError, OSError):
            served.generate(tokens=400, raw=True)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        served.until("a busy model", lambda: "answering" in served.words)
    finally:
        served.pull_out()
        asking.join()
    try:
        served.until("word of what it waits for", lambda: "names no GPU" in served.words)
        assert served.steps(since).count(("load_failed", "restart_engine")) == 1
        assert not served.resident
        assert served.pids(ENGINE_UNIT, "ollama") == []
    finally:
        with served.away("a GPU that died", lambda: on_gpu(served)):
            served.plug_in()


@fault(
    what="the model lies in host memory without a word",
    how="`LLAMA_ARG_FIT_TARGET` in a drop-in, so that nothing fits, and a restart of the engine",
    happens="`on_cpu`: the guard loads it anew, starts the engine anew, and then says `degraded` and what helps;"
    " `llmctl status` says 5",
    again="after the drop-in is gone: the restart of the engine, one look and one load",
)
def test_the_model_is_silently_on_the_cpu(served: Served) -> None:
    (name, value), since = next(iter(NOTHING_FITS.items())), len(served.events())
    served.add(ENGINE_UNIT, "fit", f"Environment={name}={value} LLAMA_ARG_FIT=on")
    try:
        served.container.run("systemctl", "restart", "--no-block", ENGINE_UNIT)
        served.until("word of it", lambda: served.note.get("reason") == "on_cpu")
        assert served.llmctl("status", "--quiet").code == 5
        served.until("the guard to give up", lambda: served.note["reason"] == "on_cpu" and served.note["degraded"])
        assert {("on_cpu", "load"), ("on_cpu", "restart_engine")} <= set(served.steps(since))
        served.says("host memory", "llmctl fit")
    finally:
        served.take_away(ENGINE_UNIT, "fit")
    served.forget_starts()
    with served.away("the CPU instead of the GPU", lambda: on_gpu(served)):
        served.container.run("systemctl", "restart", "--no-block", ENGINE_UNIT)


@pytest.fixture
def driver(served: Served) -> Iterator[NvmlStandin]:
    """Under the guard alone; one GPU, of which no process can be told (as under WSL2)."""
    found = NvmlStandin(nvml.library(), served.folder / "shared" / "nvml.script")
    found.set(ScriptedGpu())
    served.add(GUARD_UNIT, "nvml", f"Environment=LD_LIBRARY_PATH={NVML} NVML_STANDIN={SHARED / found.script.name}")
    served.calm()
    yield found
    served.take_away(GUARD_UNIT, "nvml")


@fault(
    what="the driver is not loaded",
    how="NVML's own error, from the stand-in for its library",
    happens="`gpu_lost`, `degraded`: load the driver; nothing is tried",
    again="never unloaded; the next look at NVML, which is taken the more rarely the more it costs (2 ms: every 4 s)",
    call="nvmlInitWithFlags",
    error="DRIVER_NOT_LOADED",
    reason="gpu_lost",
    helps="nvidia-smi tells whether it is there",
)
@fault(
    what="the GPU has fallen off the bus",
    how="NVML's own error, from the stand-in for its library",
    happens="`gpu_lost`, `degraded`: the kernel's log, a reboot or a reset; nothing is tried",
    again="never unloaded; the next look at NVML",
    call="nvmlDeviceGetMemoryInfo",
    error="GPU_IS_LOST",
    reason="gpu_lost",
    helps="dmesg",
)
@fault(
    what="library and driver are of different versions",
    how="NVML's own error, from the stand-in for its library",
    happens="`driver_mismatch`, `degraded`: reboot, or load the modules anew; nothing is tried",
    again="never unloaded; the next look at NVML after the reload (a reboot otherwise)",
    call="nvmlInitWithFlags",
    error="LIB_RM_VERSION_MISMATCH",
    reason="driver_mismatch",
    helps="reboot",
)
def test_what_the_driver_says(
    served: Served, driver: NvmlStandin, call: str, error: str, reason: str, helps: str
) -> None:
    since, runner = len(served.events()), served.runner
    if call == "nvmlInitWithFlags":
        driver.set(ScriptedGpu(), errors={call: error})
    else:
        driver.set(ScriptedGpu(errors={call: error}))
    served.until("word of it", lambda: served.note.get("reason") == reason)
    assert served.note["degraded"]
    served.says("degraded", helps)
    assert not served.ready
    with served.away(error, lambda: True):
        driver.set(ScriptedGpu())
    assert served.steps(since) == []
    assert served.runner == runner
