"""The speed: what answers have shown here, in the file where llmctl keeps it."""

from __future__ import annotations

import json
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
    assert 0 < seconds <= done.json["ttft_seconds"]
    assert all(isinstance(value, (int, float)) for value in (*seen, tokens, seconds))
    # How fast a CPU could be is not known, so nothing is said of it.
    assert speed(patient) == ["speed.debug-logging"]

    known["speed"][place] = [40.0] * 5
    known["best"] = {place: 90.0}
    remember(patient, known)
    finding = patient.finding("speed.slower-than-before")
    assert finding["observed"].startswith("40.0 tokens/s")
    assert finding["expected"].startswith("90.0 tokens/s")
    assert "debug logging is on; its share is not known" in finding["evidence"]


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
    slow = {"schema": 1, "runtime": {}, "speed": {place: [20.0] * 5}, "first_token": {place: [[1000, 9.0]] * 3}}
    remember(patient, slow)
    # How fast a device is that is no card of NVIDIA's is not known, so nothing is said of it.
    report = patient.report("speed")
    assert report["findings"] == []
    assert {unknown["id"] for unknown in report["unknown"]} >= {"speed.slow", "speed.first-token"}

    device = next(one["device"] for one in json.loads(text)["models"][0]["buffers"] if one["device"].startswith("RPC"))
    path.write_text(text.replace(device, "CUDA0"))
    standin.set(ScriptedGpu(temperature=96, throttle=0x40, clock=(525, 2100), pcie=(4, 8, 4, 16)))
    finding = patient.finding("speed.slow")
    assert finding["expected"].startswith("2,")
    assert "936 GB/s" in finding["expected"]
    evidence = "; ".join(finding["evidence"])
    assert "525 of 2100 MHz, 75 % less" in evidence
    assert "PCIe x8 of x16" in evidence
    assert "a context that is full takes" in evidence

    slow["speed"][place] = [900.0] * 5
    remember(patient, slow)
    finding = patient.finding("speed.first-token")
    assert finding["observed"].startswith("9.0 s until the first token of 1,000 tokens")
    slow["first_token"][place] = [[1000, 0.4]] * 3
    remember(patient, slow)
    assert speed(patient) == []


def test_the_file_of_figures_is_read_as_older_versions_wrote_it(healthy: Patient) -> None:
    path = Path(healthy.state / "learnt.json")
    path.write_text(json.dumps({"schema": 1, "runtime": {}, "speed": {}}))
    assert speed(healthy) == []
