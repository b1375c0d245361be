"""The speed: what answers have shown here, in the file where llmctl keeps it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.doctor.test_gpu import require_gpu
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "model")


def learnt(patient: Patient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((patient.state / "learnt.json").read_text())
    return found


def remember(patient: Patient, document: dict[str, Any]) -> None:
    patient.state.joinpath("learnt.json").write_text(json.dumps(document))


def speed(patient: Patient) -> list[str]:
    return ids(patient.report("speed"))


@provokes("speed.slower-than-before", "speed.debug-logging")
def test_answers_on_the_cpu_that_were_faster_once(patient: Patient) -> None:
    patient.environ["OLLAMA_DEBUG"] = "1"
    patient.up()
    assert speed(patient) == ["speed.debug-logging"]
    finding = patient.finding("speed.debug-logging")
    assert "OLLAMA_DEBUG=1" in finding["observed"]
    assert "unset OLLAMA_DEBUG" in finding["remedy"]["commands"]

    prompt = "Once upon a time there was a small machine. " * 40
    done = patient("ask", prompt, "--max-tokens", "40", "--json")
    assert done.code == 0, done.err
    known = learnt(patient)
    ((place, seen),) = known["speed"].items()
    assert place.endswith("|cpu")
    ((tokens, seconds),) = known["first_token"][place]
    assert tokens == done.json["prompt_tokens"]
    assert known["context"][place] == [done.json["prompt_tokens"] + done.json["completion_tokens"]]
    assert 0 < seconds <= done.json["ttft_seconds"]
    assert all(isinstance(value, (int, float)) for value in (*seen, tokens, seconds))
    # How fast a CPU could be is not known, so nothing is said of it.
    assert speed(patient) == ["speed.debug-logging"]

    # As an older llmctl left it, which noted no contexts.
    known["speed"][place], known["context"] = [40.0] * 5, {}
    known["best"] = {place: 90.0}
    remember(patient, known)
    finding = patient.finding("speed.slower-than-before")
    assert finding["observed"].startswith("40.0 tokens/s")
    assert finding["expected"].startswith("90.0 tokens/s")
    assert "debug logging: its share is not known: llmctl doctor --deep measures it" in finding["evidence"]
    assert not any("the context" in line for line in finding["evidence"])
    assert finding["remedy"]["commands"][0] == "llmctl doctor speed --deep"

    # Where the context may be the cause it is told, as far as its bytes go.
    known["context"][place] = [2000] * 5
    remember(patient, known)
    evidence = patient.finding("speed.slower-than-before", "--deep")["evidence"]
    (debug,) = (line for line in evidence if line.startswith("debug logging"))
    assert re.match(r"debug logging: at most (\d+(\.\d+)?) % of a token's time \(all that the server", debug)
    (context,) = (line for line in evidence if line.startswith("the context"))
    assert "2,000 of 2,048 tokens at the end of an answer, near full" in context


@pytest.mark.real("rpc", "nvml")
@provokes("speed.slow", "speed.first-token", injected="the stand-in GPU is called a CUDA device in the state")
def test_slow_answers_on_a_card_and_why(with_driver: tuple[Patient, NvmlStandin], rpc_gpu: RpcGpu) -> None:
    patient, standin = with_driver
    patient.cli.environ |= rpc_gpu.environ
    require_gpu(patient)
    patient.up()
    path = patient.state / "state.json"
    text = path.read_text()
    place = f"{json.loads(text)['models'][0]['weights_digest']}|gpu"
    slow = {
        "schema": 1,
        "runtime": {},
        "speed": {place: [20.0] * 5},
        "context": {place: [500] * 5},
        "first_token": {place: [[1000, 9.0]] * 3},
    }
    remember(patient, slow)
    # How fast a device is that is no card of NVIDIA's is not known, so nothing is said of it.
    report = patient.report("speed")
    assert report["findings"] == []
    assert {unknown["id"] for unknown in report["unknown"]} >= {"speed.slow", "speed.first-token"}

    called_cuda(patient, path, text)
    busy = ScriptedGpu(
        temperature=96,
        throttle=0x40,
        clock=(525, 2100, 9501, 9501),
        utilization=(80, 40),
        pcie=(4, 8, 4, 16),
        compute=[(os.getpid(), 4 << 30)],
        busy={os.getpid(): 20},
    )
    standin.set(busy)
    finding = patient.finding("speed.slow")
    assert finding["expected"].startswith("2,")
    assert "936 GB/s" in finding["expected"]
    hot, other, link, context, weights, rest = finding["evidence"]
    assert hot.startswith(
        "GPU 0, the card lowers its clocks for heat: at most 75 % of a token's time (memory clock 9,501"
    )
    assert "SM clock 525 of 2,100 MHz" in hot
    assert re.search(rf"\(pid {os.getpid()}\): at most 20 % of a token's time", other)
    assert re.match(r"the context: .*500 of 2,048 tokens at the end of an answer\)$", context)
    assert link.startswith("GPU 0, PCIe 4 x8 of PCIe 4 x16: at most 0.")
    assert weights.startswith("reading the weights on the GPU: ")
    assert re.fullmatch(r"at least \d+ % of a token's time is not explained by these shares", rest)
    assert finding["remedy"]["commands"][0] == "nvidia-smi --query --display=PERFORMANCE"

    # While it is idle its clocks say nothing, and NVML may not tell how much each process works.
    standin.set(replace(busy, utilization=(0, 0), busy=None))
    evidence = patient.finding("speed.slow")["evidence"]
    assert any("its share is not known: the card is idle now" in line for line in evidence)
    assert any("its share is not known: NVML does not tell how much" in line for line in evidence)
    # At work they do: while the probe ran.
    standin.set(replace(busy, clock=(2100, 2100, 4750, 9501)))
    hot, *_ = patient.finding("speed.slow", "--deep")["evidence"]
    assert re.match(r"GPU 0, .*: \d+(\.\d)? to 50 % of a token's time \(memory clock 4,750 of 9,501 MHz", hot)
    standin.set(ScriptedGpu())

    slow["speed"][place] = [900.0] * 5
    remember(patient, slow)
    finding = patient.finding("speed.first-token")
    assert finding["observed"].startswith("9.0 s until the first token of 1,000 tokens")
    slow["first_token"][place] = [[1000, 0.4]] * 3
    remember(patient, slow)
    assert speed(patient) == []


@pytest.mark.real("rpc", "nvml")
@provokes("speed.slow", "speed.first-token", injected="the stand-in GPU is called a CUDA device in the state")
def test_layers_in_host_memory_behind_a_narrow_link(with_driver: tuple[Patient, NvmlStandin], rpc_gpu: RpcGpu) -> None:
    patient, standin = with_driver
    patient.cli.environ |= rpc_gpu.environ | {"LLAMA_ARG_N_GPU_LAYERS": "5"}
    patient.up()
    path = patient.state / "state.json"
    text = path.read_text()
    called_cuda(patient, path, text)
    place = f"{json.loads(text)['models'][0]['weights_digest']}|partial"
    slow = {"schema": 1, "runtime": {}, "speed": {place: [9.0] * 5}, "first_token": {place: [[1000, 5.0]] * 3}}
    remember(patient, slow)
    standin.set(ScriptedGpu(utilization=(80, 40), pcie=(4, 4, 4, 16)))
    evidence = patient.finding("speed.slow")["evidence"]
    # The starter's weights are 222 MiB as they lie in host memory, of which the embedding table is read by the row.
    (layers,) = (line for line in evidence if line.startswith("offloaded layers"))
    assert re.match(
        r"offloaded layers: \d.* % of a token's time \(\d+ MiB a token are read from host memory\)$", layers
    )
    (link,) = (line for line in evidence if "PCIe 4 x4 of PCIe 4 x16" in line)
    assert "1.2 MB cross it for a token, or less" in link
    (context,) = (line for line in evidence if line.startswith("the context"))
    assert context.startswith("the context: its share is not known: how full it was was not noted; a full one takes")

    # Answers of a few words tell of the first token alone.
    del slow["speed"][place]
    remember(patient, slow)
    evidence = patient.finding("speed.first-token")["evidence"]
    (layers,) = (line for line in evidence if line.startswith("offloaded layers"))
    assert "are copied to the card, once for each 512 tokens" in layers
    (link,) = (line for line in evidence if "PCIe 4 x4 of PCIe 4 x16" in line)
    assert "what these copies take longer" in link

    # Where no answer was noted the probe's own speed is looked at, beside the same roofline.
    remember(patient, {"schema": 1, "runtime": {}, "speed": {}})
    assert "speed.slow" in {unknown["id"] for unknown in patient.report("speed")["unknown"]}
    assert "speed.slow" not in {unknown["id"] for unknown in patient.report("speed", "--deep")["unknown"]}


def called_cuda(patient: Patient, path: Path, text: str) -> None:
    """The stand-in's device by the name of a card of NVIDIA's, in the state and where the runner says what it uses."""
    device = next(one["device"] for one in json.loads(text)["models"][0]["buffers"] if one["device"].startswith("RPC"))
    path.write_text(text.replace(device, "CUDA0"))
    log = patient.state / "logs" / "server.log"
    said, changed = re.subn(
        r"using device RPC0 \(\S+\)", "using device CUDA0 (NVIDIA GeForce RTX 3090)", log.read_text()
    )
    assert changed
    log.write_text(said)


def test_the_file_of_figures_is_read_as_older_versions_wrote_it(healthy: Patient) -> None:
    path = Path(healthy.state / "learnt.json")
    path.write_text(json.dumps({"schema": 1, "runtime": {}, "speed": {}}))
    assert speed(healthy) == []
