"""The GPU inventory: real pynvml over a scripted driver, each question asked in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.system.nvml import FIRST_PID_NAMESPACE
from tests.parts.nvml import NvmlStandin, ScriptedGpu

pytestmark = pytest.mark.real("nvml")

GIB = 1024**3
PID = 4242
ON_THE_HOST = Path("/proc/self/ns/pid").stat().st_ino == FIRST_PID_NAMESPACE


def ask(standin: NvmlStandin, question: str, *prefix: str) -> Any:
    """The value of an expression over llmctl.system.nvml in a new interpreter, where the library can be found."""
    program = f"import dataclasses, json; from llmctl.system import nvml; print(json.dumps({question}))"
    command = [*prefix, sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | standin.environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def inventory(standin: NvmlStandin) -> Any:
    return ask(standin, "dataclasses.asdict(nvml.gpus())")


def process_bytes(standin: NvmlStandin, *prefix: str) -> dict[str, int | None]:
    held: dict[str, int | None] = ask(standin, f"nvml.process_bytes({PID})", *prefix)
    return held


def test_each_card_with_its_memory(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(
        ScriptedGpu(uuid="GPU-a", total_bytes=24 * GIB, used_bytes=GIB),
        ScriptedGpu(name="NVIDIA L40S", uuid="GPU-b", total_bytes=45 * GIB, used_bytes=0),
        driver="570.86.10",
    )
    found = inventory(nvml_standin)
    assert found["driver_version"] == "570.86.10"
    assert found["unavailable"] is None
    first, second = found["gpus"]
    assert first == {
        "index": 0,
        "uuid": "GPU-a",
        "name": "NVIDIA GeForce RTX 3090",
        "total_bytes": 24 * GIB,
        "free_bytes": 23 * GIB,
    }
    assert (second["index"], second["name"], second["free_bytes"]) == (1, "NVIDIA L40S", 45 * GIB)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("DRIVER_NOT_LOADED", "Driver Not Loaded"),
        ("LIB_RM_VERSION_MISMATCH", "version mismatch"),
        ("NO_PERMISSION", "Insufficient Permissions"),
    ],
)
def test_a_driver_that_does_not_start_is_a_reason(nvml_standin: NvmlStandin, code: str, said: str) -> None:
    nvml_standin.set(ScriptedGpu(), errors={"nvmlInitWithFlags": code})
    found = inventory(nvml_standin)
    assert found["gpus"] == []
    assert said.lower() in found["unavailable"].lower()
    assert process_bytes(nvml_standin) == {}


def test_a_lost_card_is_named_and_the_others_stay(nvml_standin: NvmlStandin) -> None:
    lost = ScriptedGpu(errors={"nvmlDeviceGetHandleByIndex_v2": "GPU_IS_LOST"})
    nvml_standin.set(lost, ScriptedGpu(compute=[(PID, GIB)]))
    found = inventory(nvml_standin)
    assert [gpu["index"] for gpu in found["gpus"]] == [1]
    assert "GPU 0" in found["unavailable"]
    assert "lost" in found["unavailable"]
    assert process_bytes(nvml_standin) == {"1": GIB}


def test_a_card_without_uuid_is_still_a_card(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(uuid=None))
    assert inventory(nvml_standin)["gpus"][0]["uuid"] is None


def test_no_cards_at_all(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set()
    assert inventory(nvml_standin)["gpus"] == []
    assert process_bytes(nvml_standin) == {}


def test_a_process_listed_twice_counts_once(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(compute=[(PID, GIB), (7, 5)], graphics=[(PID, GIB)]))
    assert process_bytes(nvml_standin) == {"0": GIB}


def test_bytes_that_cannot_be_told_are_unknown(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(
        ScriptedGpu(compute=[(PID, None)]),
        ScriptedGpu(errors={"nvmlDeviceGetComputeRunningProcesses_v3": "NOT_SUPPORTED"}),
        ScriptedGpu(compute=[(PID, 3 * GIB)]),
    )
    assert process_bytes(nvml_standin) == {"0": None, "1": None, "2": 3 * GIB}


def test_a_process_that_is_not_listed_holds_nothing_only_on_the_host(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(compute=[(7, GIB)]))
    assert process_bytes(nvml_standin) == {"0": 0 if ON_THE_HOST else None}


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace of its own needs root")
def test_in_a_container_an_unlisted_process_is_unknown(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(compute=[(7, GIB)]))
    assert process_bytes(nvml_standin, "unshare", "--pid", "--fork", "--mount-proc") == {"0": None}


def test_what_all_cards_hold_is_unknown_when_one_cannot_tell(nvml_standin: NvmlStandin) -> None:
    nvml_standin.set(ScriptedGpu(used_bytes=GIB), ScriptedGpu(used_bytes=2 * GIB))
    assert ask(nvml_standin, "nvml.used_bytes()") == 3 * GIB
    broken = ScriptedGpu(errors={"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"})
    nvml_standin.set(ScriptedGpu(used_bytes=GIB), broken)
    assert ask(nvml_standin, "nvml.used_bytes()") is None


def test_without_a_driver_there_is_a_reason(nvml_standin: NvmlStandin) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    nvml_standin.library = Path("/nowhere/libnvidia-ml.so.1")
    assert "libnvidia-ml.so.1" in inventory(nvml_standin)["unavailable"]
