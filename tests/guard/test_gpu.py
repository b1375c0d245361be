"""The guard where a GPU is required: a scripted driver under the real NVML binding, a stand-in GPU under the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.guard.conftest import RunningGuard, StartGuard, until
from tests.lifecycle.conftest import Llmctl
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import NOTHING_FITS, RpcGpu

pytestmark = pytest.mark.real("ollama", "model", "rpc", "nvml")


@pytest.fixture
def on_gpu(
    llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu, nvml_standin: NvmlStandin, start_guard: StartGuard
) -> RunningGuard:
    """A guard of a model that lies on the GPU, as the engine's log and /api/ps say."""
    llmctl.environ |= rpc_gpu.environ
    assert llmctl("up", llmctl.profile(starter_gguf, require="full")).code == 0
    llmctl.environ |= nvml_standin.environ
    guard = start_guard()
    guard.is_ready()
    return guard


@pytest.mark.parametrize(
    ("code", "reason", "helps"),
    [
        ("LIB_RM_VERSION_MISMATCH", "driver_mismatch", "reboot"),
        ("DRIVER_NOT_LOADED", "gpu_lost", "load the NVIDIA driver"),
    ],
)
def test_a_driver_that_does_not_work_is_named_never_fought_and_its_return_is_seen(
    on_gpu: RunningGuard, nvml_standin: NvmlStandin, code: str, reason: str, helps: str
) -> None:
    nvml_standin.set(ScriptedGpu(), errors={"nvmlInitWithFlags": code})
    told = on_gpu.told(reason)
    assert told["degraded"]
    assert told["action"] is None
    assert helps in told["remedy"]
    runner = on_gpu.cli.runner
    on_gpu.cli.kill(runner)
    seen = len(on_gpu.events)
    # The event is said before the note is written.
    note = until("the note", lambda: (found := on_gpu.note) and found.reason == reason and found)
    assert (note.degraded, note.ready) == (True, False)
    nvml_standin.set(ScriptedGpu())
    on_gpu.told("not_running", "load", since=seen)
    on_gpu.is_ready()
    assert on_gpu.cli("status", "--quiet").code == 0
    assert all(event["action"] is None for event in on_gpu.events[:seen])


def test_a_lost_gpu_is_named(on_gpu: RunningGuard, nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(errors={"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"}))
    told = on_gpu.told("gpu_lost")
    assert "GPU 0" in told["observed"]
    assert "reset" in told["remedy"]


def test_a_runner_that_dies_with_its_gpu_is_no_eviction(on_gpu: RunningGuard, nvml_standin: NvmlStandin) -> None:
    """NVML is asked when a runner has ended, not when it is due."""
    runner = on_gpu.cli.runner
    seen = len(on_gpu.events)
    nvml_standin.set(ScriptedGpu(errors={"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"}))
    on_gpu.cli.kill(runner)
    on_gpu.told("gpu_lost", since=seen)
    assert {(event["reason"], event["action"]) for event in on_gpu.events[seen:]} == {("gpu_lost", None)}


def test_a_model_on_the_cpu_is_loaded_anew_once_and_then_the_engine_starts_anew(
    llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu, start_guard: StartGuard
) -> None:
    """The server runs with settings that put nothing on the GPU; the profile does not want that any more."""
    llmctl.environ |= rpc_gpu.environ | NOTHING_FITS
    port = Path(ready).read_text().partition("port: ")[2].partition(",")[0]
    up = llmctl("up", ready, "--json")
    assert up.json["models"][0]["place"] == "cpu"
    server = llmctl.server
    profile = llmctl.profile(starter_gguf, port=int(port), require="partial")
    guard = start_guard("--profile", profile)
    guard.told("on_cpu", "load")
    guard.told("on_cpu", "restart_engine")
    guard.is_ready()
    assert llmctl.server != server
    status = llmctl("status", "--json").json
    assert (status["models"][0]["place"], status["models"][0]["verdict"]) == ("gpu", "proved")


def test_a_server_that_llmctl_did_not_start_is_loaded_but_never_signalled(
    llmctl: Llmctl, starter_gguf: Path, ollama_server: StartOllama, start_guard: StartGuard
) -> None:
    server = ollama_server({"OLLAMA_KEEP_ALIVE": "5m"})
    assert llmctl("up", llmctl.profile(starter_gguf, port=server.port), "--yes").code == 0
    guard = start_guard()
    guard.is_ready()
    alias = llmctl("status", "--json").json["models"][0]["alias"]
    server.post("/api/generate", {"model": alias, "keep_alive": 0})
    guard.told("evicted", "load")
    guard.is_ready()
    until("resident", lambda: [model["name"] for model in server.get("/api/ps")["models"]] == [alias])
    # Loaded as it was by `up`: for ever, which this server does not do by itself.
    assert server.ps(alias)["expires_at"] > "2200"

    seen = len(guard.events)
    server.stop()
    told = guard.told("not_running", since=seen)
    assert told["action"] is None
    assert "did not start" in told["remedy"]
    assert server.process.poll() is not None
    # A probe that was on its way is no signal.
    assert {event["action"] for event in guard.events[seen:]} <= {None, "probe"}
