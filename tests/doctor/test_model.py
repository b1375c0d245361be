"""The models: unloaded, replaced, on the wrong device, with another context, of other weights, or deaf."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import provokes
from tests.doctor.test_server import attach, edit, until
from tests.guard.test_faults import Api, other_weights
from tests.parts import rpc
from tests.parts.engine import InstalledEngine
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.parts.rpc import NOTHING_FITS, RpcGpu

pytestmark = pytest.mark.real("ollama", "model")
ONE = {"prompt": "1", "options": {"num_predict": 1}}


@provokes("model.not-resident", "model.wrong-context", "model.wrong-digest")
def test_what_is_loaded_in_its_place(healthy: Patient, starter_gguf: Path) -> None:
    api = Api(healthy.cli)
    healthy.cli.kill(api.runner)
    # A probe would load it.
    healthy.report("model", "--deep")
    assert "runner has ended" in healthy.finding("model.not-resident")["observed"]

    api.post("/api/generate", {"model": api.alias, "prompt": "1", "options": {"num_predict": 1, "num_ctx": 1024}})
    report = healthy.report("model", "--deep")
    assert "model.no-token" in {unknown["id"] for unknown in report["unknown"]}
    found = healthy.finding("model.wrong-context")
    assert found["observed"] == "1,024 tokens"
    assert found["expected"].startswith("2,048 tokens")
    assert healthy("doctor", "--fix", "--yes", "model.wrong-context").code == 0
    assert healthy.fine("model.wrong-context")

    rival = other_weights(api, starter_gguf)
    api.post("/api/generate", {"model": rival, **ONE})
    found = healthy.finding("model.not-resident")
    assert "rival:latest (context 2,048)" in found["observed"]
    assert found["remedy"]["safe"]

    # The plain name that the weights were pinned from is made to stand for others, and a client asks for it.
    api.post("/api/copy", {"source": rival, "destination": "starter"})
    api.post("/api/generate", {"model": rival, "keep_alive": 0})
    until(lambda: not api.loaded())
    api.post("/api/generate", {"model": "starter", **ONE})
    found = healthy.finding("model.wrong-digest", "model.wrong-digest")
    assert "starter:latest is loaded" in found["observed"]


@provokes("model.load-failed")
def test_weights_that_the_engine_cannot_load(healthy: Patient) -> None:
    """Damaged where no quick look finds it: the file is as long as it was. Then it is mended."""
    api = Api(healthy.cli)
    api.post("/api/generate", {"model": api.alias, "keep_alive": 0})
    until(lambda: not api.loaded())
    digest = healthy("list", "--json").json["models"][0]["weights_digest"]
    blob = Path(healthy.cli.environ["OLLAMA_MODELS"]) / "blobs" / digest.replace(":", "-")
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(content.replace(b"gemma3", b"gemmaX"))
    with pytest.raises(AssertionError, match="unknown model architecture"):
        api.post("/api/generate", {"model": api.alias, **ONE})
    found = healthy.finding("model.load-failed")
    assert "unknown model architecture: 'gemmaX'" in found["observed"]
    assert found["remedy"]["commands"][0] == "llmctl verify"
    assert healthy("verify").code == 5
    assert "model.not-resident" not in ids(healthy.report())

    blob.write_bytes(content)
    healthy.up()
    assert healthy.fine("model.load-failed")


@pytest.mark.real("rpc", "nvml")
@provokes("model.on-cpu", "model.partial")
def test_where_it_lies(
    with_driver: tuple[Patient, NvmlStandin], rpc_gpu: RpcGpu, engine: InstalledEngine, tmp_path: Path
) -> None:
    patient, _ = with_driver
    patient.cli.environ |= rpc_gpu.environ | {"LLAMA_ARG_N_GPU_LAYERS": "5"}
    patient.up()
    edit(patient, "require: none", "require: full")
    found = patient.finding("model.partial", "--profile", patient.profile)
    assert "%" in found["observed"]
    assert any("RPC0" in line and "CPU" in line for line in found["evidence"])
    assert patient("down").code == 0

    edit(patient, "require: full", "require: none")
    del patient.cli.environ["LLAMA_ARG_N_GPU_LAYERS"]
    # The stand-in may have died with its first client.
    another = rpc.start(engine, tmp_path)
    try:
        patient.cli.environ |= another.environ | NOTHING_FITS
        patient.up()
        assert patient.fine("model.on-cpu")
        edit(patient, "require: none", "require: partial")
        found = patient.finding("model.on-cpu", "--profile", patient.profile)
        assert "nothing on a GPU" in found["observed"]
        assert ids(patient.report("model", "--profile", patient.profile)) == ["model.on-cpu"]
    finally:
        another.stop()


@pytest.mark.real("rpc", "nvml")
@provokes("model.unproved")
def test_nothing_shows_where_it_lies(
    with_driver: tuple[Patient, NvmlStandin], ollama_server: StartOllama, rpc_gpu: RpcGpu
) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(errors={"nvmlDeviceGetComputeRunningProcesses_v3": "NOT_SUPPORTED"}))
    server = ollama_server(rpc_gpu.environ, models=Path(patient.cli.environ["OLLAMA_MODELS"]))
    attach(patient, server)
    edit(patient, "require: none", "require: full")
    assert patient("up", patient.profile, "--yes").code == 5
    found = patient.finding("model.unproved", "--profile", patient.profile)
    assert "neither" in found["observed"]


@pytest.mark.real("rpc", "nvml")
@provokes("model.no-token")
def test_its_device_goes_while_it_is_loaded(with_driver: tuple[Patient, NvmlStandin], rpc_gpu: RpcGpu) -> None:
    patient, _ = with_driver
    patient.cli.environ |= rpc_gpu.environ
    edit(patient, "require: none", "require: full")
    patient.up()
    report = patient.report("--deep")
    assert "model.no-token" not in ids(report)
    assert not [each for each in report["unknown"] if each["id"] == "model.no-token"]
    rpc_gpu.stop()
    found = patient.finding("model.no-token", "--deep")
    assert found["subject"] == "starter"
