"""The memory: a real engine on the stand-in GPU or on the CPU, and NVIDIA's driver as a script tells it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.doctor.test_gpu import RUN, require_gpu
from tests.guard.test_faults import Api
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "model")

MIB, GIB = 1 << 20, 1 << 30
TOTAL = 24 * GIB


@pytest.fixture
def on_gpu(with_driver: tuple[Patient, NvmlStandin], rpc_gpu: RpcGpu) -> tuple[Patient, NvmlStandin]:
    """The model lies on the stand-in GPU, as the profile requires; the script tells of another card."""
    patient, standin = with_driver
    patient.cli.environ |= rpc_gpu.environ
    require_gpu(patient)
    patient.up()
    return patient, standin


def unload(patient: Patient) -> None:
    api = Api(patient.cli)
    api.post("/api/generate", {"model": api.alias, "keep_alive": 0})


def memory(patient: Patient) -> list[str]:
    return ids(patient.report("memory"))


@pytest.mark.real("rpc", "nvml")
@provokes("memory.does-not-fit", "gpu.display")
def test_a_model_that_others_leave_no_room_for(on_gpu: tuple[Patient, NvmlStandin]) -> None:
    patient, standin = on_gpu
    assert memory(patient) == []
    # Seven MiB too few, with the 330 of CUDA and the 1,024 of the margin.
    held = TOTAL - 1625 * MIB
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            # It lies where it should: what is free now is no matter.
            standin.set(ScriptedGpu(total_bytes=TOTAL, used_bytes=held, compute=[(other.pid, held)]))
            assert memory(patient) == []
            unload(patient)
            finding = patient.finding("memory.does-not-fit")
            assert finding["severity"] == "error"
            assert finding["observed"].startswith("1.6 GiB of GPU memory is free")
            assert "with a context of 2,048" in finding["expected"]
            assert finding["evidence"] == [f"sleep (pid {other.pid} of {user()}) holds 22.4 GiB"]
            ways = finding["remedy"]["commands"]
            assert ways
            assert all(way.startswith("llmctl fit ") for way in ways)
            # And each of them is one, as this machine is now.
            assert patient(*ways[0].split()[1:]).code == 0
            # The same held by a desktop.
            standin.set(ScriptedGpu(total_bytes=TOTAL, used_bytes=held, graphics=[(other.pid, held)]))
            assert patient.finding("gpu.display")["evidence"] == finding["evidence"]
        finally:
            other.kill()
    standin.set(ScriptedGpu(total_bytes=TOTAL, used_bytes=GIB))
    assert "memory.does-not-fit" not in memory(patient)


def user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


@pytest.mark.real("rpc", "nvml")
@provokes("memory.no-headroom")
@provokes("memory.figures-disagree", injected="a prediction that is wrong is written into the state")
def test_what_is_left_beside_the_model_and_what_it_should_hold(on_gpu: tuple[Patient, NvmlStandin]) -> None:
    patient, standin = on_gpu
    status = patient("status", "--json").json["models"][0]
    holds = [(status["runner_pid"], 300 * MIB)]
    standin.set(ScriptedGpu(total_bytes=TOTAL, used_bytes=TOTAL - 400 * MIB, compute=holds))
    finding = patient.finding("memory.no-headroom")
    assert (finding["observed"], finding["expected"]) == (
        "400 MiB are free beside the model",
        "1.0 GiB, the profile's gpu.reserve",
    )
    standin.set(ScriptedGpu(total_bytes=TOTAL, used_bytes=GIB, compute=holds))
    assert memory(patient) == []

    # Memory ran out before: `fit` says how the model would need less, though it lies where it should now.
    with (patient.state / "logs" / "server.log").open("a") as file:
        file.write("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: ")
        file.write("out of memory\n")
    ways = patient.finding("memory.out-of-memory")["remedy"]["commands"]
    assert any("--kv-cache q8_0" in way for way in ways)
    assert patient(*ways[0].split()[1:]).code == 0

    path = patient.state / "state.json"
    state = json.loads(path.read_text())
    state["models"][0]["predicted"]["buffers_bytes"] += 50 * MIB
    path.write_text(json.dumps(state))
    finding = patient.finding("memory.figures-disagree")
    assert "the runner allocated" in finding["observed"]


@provokes("memory.out-of-memory")
@provokes("memory.not-recovered", injected="without a GPU the engine never refreshes one's memory")
def test_a_load_that_finds_no_memory(healthy: Patient) -> None:
    """The engine's own limit of data is lowered, so that its next runner really gets no memory."""
    unload(healthy)
    server = healthy.cli.server
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
    limit = int(lines["VmData"].split()[0]) * 1024 + 48 * MIB
    resource.prlimit(server, resource.RLIMIT_DATA, (limit, limit))
    assert healthy("up", healthy.profile).code != 0
    finding = healthy.finding("memory.out-of-memory")
    assert "ran out of host memory" in finding["observed"]
    assert finding["evidence"]
    assert finding["subject"].endswith("server.log")

    log = Path(finding["subject"])
    with log.open("a") as file:
        file.write(
            "time=2026-01-02T03:04:05.678Z level=WARN source=runner.go:364 "
            'msg="unable to refresh free memory, using old values"\n'
        )
    assert "unable to refresh" in healthy.finding("memory.not-recovered")["evidence"][0]


@provokes("memory.host-short", injected="this machine has memory: /proc/meminfo is told to be another")
def test_a_model_in_host_memory_that_is_nearly_full(healthy: Patient, tmp_path: Path) -> None:
    path = tmp_path / "meminfo"

    def told(available_mib: int) -> list[dict[str, Any]]:
        path.write_text(
            f"MemTotal: 8000000 kB\nMemAvailable: {available_mib * 1024} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
        )
        prelude = f"from pathlib import Path\nfrom llmctl.system import host\nhost.MEMINFO = Path({str(path)!r})"
        done = subprocess.run(
            [sys.executable, "-c", prelude + RUN, "doctor", "memory.host-short", "--json"],
            env={**os.environ, **healthy.cli.environ, **healthy.environ},
            capture_output=True,
            text=True,
            timeout=120,
        )
        findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return findings

    (finding,) = told(300)
    assert finding["observed"].startswith("300 MiB of host memory")
    assert told(3000) == []
    # Not loaded, it is the model's own need that counts.
    unload(healthy)
    (finding,) = told(150)
    assert finding["subject"] == "starter"
    assert told(2000) == []


def test_what_the_server_would_evict_counts_as_free_and_nobody_elses() -> None:
    """Two cards: a runner of this server on one, somebody else's program and an orphan on the other."""
    from dataclasses import replace
    from types import SimpleNamespace

    from llmctl.core.checks.facts import NotGathered
    from llmctl.core.checks.facts.gpu import Card, GpuFacts, GpuProcess
    from llmctl.core.checks.facts.host import HostFacts
    from llmctl.core.checks.facts.server import Runner, ServerFacts
    from llmctl.core.profile import GpuSpec, ModelSpec, Profile
    from llmctl.workflows.gather.fit import machine_of

    def runner(pid: int, parent: int | None) -> Runner:
        return Runner(pid, "me", parent, (), "S", None, None, "ok", 1.0)

    def card(index: int, *held: tuple[int, int]) -> Card:
        processes = tuple(GpuProcess(pid, "x", "me", size, "compute") for pid, size in held)
        return Card(index, f"RTX {index}", TOTAL, TOTAL - sum(size for _, size in held), processes=processes)

    server = ServerFacts(
        "http://127.0.0.1:1", "default", "answers", version="0.34.0", pid=7, runners=(runner(8, 7), runner(9, None))
    )
    gpus = GpuFacts("fine", cards=(card(0, (8, 6 * GIB)), card(1, (9, 2 * GIB), (10, 3 * GIB))))

    def free(devices: Any, seen: GpuFacts = gpus) -> list[int]:
        given = SimpleNamespace(
            profile=Profile("mine", (ModelSpec("m"),), gpu=GpuSpec("full", devices=devices)),
            of_server=server,
            of_gpu=seen,
            of_host=HostFacts(None, None, None),
            server=SimpleNamespace(paths=SimpleNamespace(state=Path("/nowhere"))),
        )
        return [found.free_bytes // GIB for found in machine_of(given).cards]  # type: ignore[arg-type]

    assert free("all") == [24, 19]
    assert free((1,)) == [19]
    # In a container the runner goes by another number: what it holds cannot be told from what others do.
    with pytest.raises(NotGathered, match="NVML numbers processes as the host does"):
        free("all", replace(gpus, pids_known=False))
