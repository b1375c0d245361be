"""What guides get wrong, with the numbers of this machine."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.core.gpu import Gpu
from llmctl.system import nvml
from llmctl.workflows import explain
from tests.doctor.conftest import Patient
from tests.lifecycle.conftest import Done
from tests.parts.nvml import NvmlStandin, ScriptedGpu


def by_id(done: Done) -> dict[str, dict[str, Any]]:
    assert done.code == 0, done.err
    return {each["id"]: each for each in done.json["misbeliefs"]}


@pytest.mark.real("ollama", "model", "nvml")
def test_the_figures_are_those_of_the_profiles_model(with_driver: tuple[Patient, NvmlStandin]) -> None:
    patient, standin = with_driver
    done = patient("doctor", "--explain", "--json", "--profile", patient.profile)
    found = by_id(done)
    assert done.json["model"] == "starter"
    assert {"decompressed", "quadratic", "num-ctx", "flash-attention", "three-bits", "keep-alive"} == found.keys()

    file, weights = (figure["value_bytes"] for figure in found["decompressed"]["figures"])
    assert file == 253_113_024
    # The embedding of this model is its output layer too, and lies on both devices.
    assert file - (8 << 20) < weights < 2 * file

    sizes = [figure["value_bytes"] for figure in found["quadratic"]["figures"]]
    fit = patient("fit", "--profile", patient.profile, "--gpu", "24GiB", "--json").json
    assert sizes[0] == sum(device["kv_bytes"] for device in fit["models"][0]["devices"])
    assert sizes[0] < sizes[1] < sizes[2] <= 4 * sizes[0]

    assert "RTX 3090" in found["flash-attention"]["here"]
    three = {figure["basis"]: figure["value_bytes"] for figure in found["three-bits"]["figures"]}
    assert three["nvml"] == 25_769_803_776
    assert "2,048 tokens" in found["num-ctx"]["here"]

    standin.set(ScriptedGpu(errors={"nvmlDeviceGetHandleByIndex_v2": "GPU_IS_LOST"}), ScriptedGpu())
    shown = by_id(patient("doctor", "--explain", "--json", "--profile", patient.profile))
    assert "this machine has GPU 1 (NVIDIA GeForce RTX 3090)" in shown["flash-attention"]["here"]
    standin.set(ScriptedGpu(), errors={"nvmlInitWithFlags": "LIB_RM_VERSION_MISMATCH"})
    shown = by_id(patient("doctor", "--explain", "--json", "--profile", patient.profile))
    assert "this machine has cards that cannot be told" in shown["flash-attention"]["here"]


@pytest.mark.parametrize(
    ("cards", "unavailable", "shown"),
    [
        ((), nvml.NO_DRIVER, {}),
        ((), None, {}),
        ((), "NVML: Driver/library version mismatch", None),
        ((), "GPU 0: GPU is lost", None),
        ((Gpu(1, None, "RTX", 24, None),), "GPU 0: GPU is lost", {"GPU 1 (RTX)": 24}),
        ((Gpu(0, None, "RTX", 24, None), Gpu(2, None, "RTX", 8, None)), None, {"GPU 0 (RTX)": 24, "GPU 2 (RTX)": 8}),
    ],
)
def test_which_cards_there_are(
    cards: tuple[Gpu, ...], unavailable: str | None, shown: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "gpus", lambda: nvml.GpuInventory(cards, None, unavailable))
    assert explain.cards() == shown


def test_without_the_model_the_formulas_say_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from llmctl.cli import main
    from llmctl.env import Env

    def explained(*more: str) -> str:
        out = io.StringIO()
        assert main(["doctor", "--explain", "--profile", "24gb", *more], Env(stdout=out, stderr=io.StringIO())) == 0
        return out.getvalue()

    import json

    document = json.loads(explained("--json"))
    assert document["model"] is None
    figures = {each["id"]: [figure["value_bytes"] for figure in each["figures"]] for each in document["misbeliefs"]}
    q8 = 2 * 80 * 8 * 128 * 16384 // 32 * 34
    assert figures["quadratic"] == [q8, 2 * q8, 4 * q8]
    q3, iq3, _, card = figures["three-bits"][:4]
    assert q3 > iq3 > card, "even without a cache"
    text = explained()
    assert "80 layers, 8 KV heads of 128" in text
    assert "There is no such flag" in text
