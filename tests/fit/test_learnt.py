"""What a load shows of the driver's share is what `fit` counts from then on: the real pynvml over a scripted driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.memory.fit import CUDA_RUNTIME_BYTES, DEFAULT_VERSION
from llmctl.system import learnt
from tests.parts.nvml import NvmlStandin, ScriptedGpu

pytestmark = pytest.mark.real("nvml")

MIB = 1 << 20
PID = 4242
LEARN = """
import sys
from pathlib import Path
from llmctl.core.placement import Buffer
from llmctl.core.prediction import Predicted
from llmctl.core.server_state import ActiveModel
from llmctl.workflows import gate
buffers = (Buffer("CUDA0", "model", 1000 << 20), Buffer("CUDA0", "KV", 24 << 20), Buffer("CPU", "model", 77 << 20))
line, weights = sys.argv[4:] if len(sys.argv) > 4 else ("", "0")
buffers += (Buffer(line, "projector", 9 << 20),) if line else ()
model = ActiveModel("m", "m:latest", "llmctl/m:0", "", "", "sha256:0", "Q4_K_M", 4096, None, "proved", "gpu",
                    runner_pid=int(sys.argv[2]), buffers=buffers,
                    predicted=Predicted(1024 << 20, 330 << 20, 0, 0, int(weights)))
gate.learn(Path(sys.argv[1]), sys.argv[3], model)
"""


def learn(standin: NvmlStandin, state: Path, version: str = DEFAULT_VERSION, *projector: str) -> None:
    command = [sys.executable, "-c", LEARN, str(state), str(PID), version, *projector]
    subprocess.run(command, env=os.environ | standin.environ, check=True)


def runtime_bytes(standin: NvmlStandin, state: Path, model: Path) -> int:
    """What `llmctl fit` counts for this machine's card."""
    environ = os.environ | standin.environ | {"LLMCTL_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "llmctl", "fit", str(model), "--context", "4096", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    figure: int = json.loads(done.stdout)["devices"][0]["runtime_bytes"]
    return figure


def test_what_a_process_holds_beyond_the_buffers_replaces_the_published_figure(
    nvml_standin: NvmlStandin, tmp_path: Path, shapes: dict[str, Path]
) -> None:
    model, state = shapes["llama-3.2-1b"], tmp_path / "state"
    nvml_standin.set(ScriptedGpu(compute=[(PID, (1024 + 275) * MIB)]), driver="570.86.10")
    assert runtime_bytes(nvml_standin, state, model) == CUDA_RUNTIME_BYTES
    learn(nvml_standin, state)
    assert runtime_bytes(nvml_standin, state, model) == 275 * MIB
    # The most that was seen stays.
    nvml_standin.set(ScriptedGpu(compute=[(PID, (1024 + 200) * MIB)]), driver="570.86.10")
    learn(nvml_standin, state)
    assert runtime_bytes(nvml_standin, state, model) == 275 * MIB
    # Another driver has another context.
    nvml_standin.set(ScriptedGpu(compute=[(PID, (1024 + 200) * MIB)]), driver="580.65.06")
    assert runtime_bytes(nvml_standin, state, model) == CUDA_RUNTIME_BYTES
    learn(nvml_standin, state, "0.33.0")
    assert runtime_bytes(nvml_standin, state, model) == CUDA_RUNTIME_BYTES


@pytest.mark.parametrize(
    "gpus",
    [
        [ScriptedGpu(compute=[(PID, None)])],
        [ScriptedGpu(compute=[(PID + 1, 2000 * MIB)])],
        [ScriptedGpu(compute=[(PID, 900 * MIB)])],
        [ScriptedGpu(compute=[(PID, 2000 * MIB)]), ScriptedGpu(uuid="GPU-b")],
    ],
    ids=["not told", "another process", "less than the buffers", "several GPUs"],
)
def test_nothing_is_learnt_from_what_does_not_tell(
    nvml_standin: NvmlStandin, tmp_path: Path, shapes: dict[str, Path], gpus: list[ScriptedGpu]
) -> None:
    nvml_standin.set(*gpus)
    learn(nvml_standin, tmp_path / "state")
    assert runtime_bytes(nvml_standin, tmp_path / "state", shapes["llama-3.2-1b"]) == CUDA_RUNTIME_BYTES


@pytest.mark.parametrize(("line", "weights"), [("CUDA0", 0), ("CPU", 0), ("CUDA0", 800 * MIB), ("", 800 * MIB)])
def test_nothing_is_learnt_from_a_model_for_pictures(
    nvml_standin: NvmlStandin, tmp_path: Path, line: str, weights: int
) -> None:
    """Its projector holds more than its weights, and nobody says how much."""
    nvml_standin.set(ScriptedGpu(compute=[(PID, 2000 * MIB)]))
    learn(nvml_standin, tmp_path / "state", DEFAULT_VERSION, line, str(weights))
    assert learnt.read(tmp_path / "state") == learnt.Learnt()
    learn(nvml_standin, tmp_path / "state")
    assert learnt.read(tmp_path / "state").runtime


def test_what_a_load_came_to_is_kept_beside_its_prediction(nvml_standin: NvmlStandin, tmp_path: Path) -> None:
    """Of several GPUs too: the prediction is of all of them together."""
    state, predicted = tmp_path / "state", (1024 + 330) * MIB

    def kept(driver: str = "570.86.10") -> tuple[tuple[int, int], ...]:
        return learnt.read(state).residuals(DEFAULT_VERSION, driver, "sha256:0")

    for held, other in ((1300, 0), (1300, 0), (900, 500)):
        nvml_standin.set(
            ScriptedGpu(compute=[(PID, held * MIB)]),
            *([ScriptedGpu(uuid="GPU-b", compute=[(PID, other * MIB)])] if other else []),
            driver="570.86.10",
        )
        learn(nvml_standin, state)
    assert kept() == ((predicted, 1300 * MIB), (predicted, 1400 * MIB))
    assert kept("580.65.06") == ()
    document = json.loads((state / "learnt.json").read_text())
    assert document["residual"] == {f"{DEFAULT_VERSION}|570.86.10|sha256:0": [list(pair) for pair in kept()]}
