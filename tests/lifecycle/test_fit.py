"""A real load beside its prediction: Ollama on the GPU stand-in, with everything on it, a part, and nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.conftest import Llmctl
from tests.memory.placing import memory_bytes
from tests.parts import machine
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "rpc", "model")

MIB = 1 << 20
PROFILE = """\
schema: 1
server: {{host: 127.0.0.1, port: {port}, context: 2048}}
models:
  - {{name: starter, source: {source}}}
gpu: {{require: {require}, reserve: {reserve}MiB}}
"""


def profile(cli: Llmctl, source: Path, require: str, leave_mib: int) -> str:
    """A profile that may use `leave_mib` of the stand-in."""
    path = cli.folder / "my.yaml"
    reserve = memory_bytes() // MIB - leave_mib
    path.write_text(PROFILE.format(port=machine.free_port(), source=source, require=require, reserve=reserve))
    return str(path)


@pytest.mark.parametrize(("require", "leave_mib", "place"), [("full", 1000, "gpu"), ("partial", 240, "partial")])
def test_what_the_runner_allocates_is_what_fit_said(
    llmctl: Llmctl,
    ready: str,
    starter_gguf: Path,
    rpc_gpu: RpcGpu,
    require: str,
    leave_mib: int,
    place: str,
) -> None:
    llmctl.environ |= rpc_gpu.environ
    asked = profile(llmctl, starter_gguf, require, leave_mib)
    free = f"{memory_bytes() // 1024}KiB"
    fit = llmctl("fit", str(starter_gguf), "--profile", asked, "--gpu", free, "--backend", "rpc", "--json")
    said = fit.json
    assert said["verdict"] == {"gpu": "full", "partial": "partial"}[place]
    assert said["exactness"] == {"weights": "exact", "kv": "exact", "compute": "exact"}
    up = llmctl("up", asked, "--json")
    assert up.code == 0, up.err
    model = up.json["models"][0]
    assert (model["verdict"], model["place"]) == ("proved", place)
    printed = sum(one["size_bytes"] for one in model["buffers"] if not one["device"].startswith("CPU"))
    gpu = said["devices"][0]
    assert abs(printed - gpu["used_bytes"]) <= len(model["buffers"]) * 0.005 * MIB + 1
    assert model["predicted"]["buffers_bytes"] == gpu["used_bytes"]

    status = llmctl("status", "--json").json["models"][0]
    assert status["predicted_bytes"] == gpu["used_bytes"]
    # Gemma 3 slides: /api/ps loses the first of two cache lines, and the status says who is right.
    assert status["claimed_gpu_bytes"] < status["predicted_bytes"]
    assert any("/api/ps" in finding for finding in status["findings"])
    llmctl("down")


def test_up_refuses_before_the_load_what_would_not_lie_on_the_gpu(
    llmctl: Llmctl,
    ready: str,
    starter_gguf: Path,
    rpc_gpu: RpcGpu,
) -> None:
    llmctl.environ |= rpc_gpu.environ
    refused = llmctl("up", profile(llmctl, starter_gguf, "full", 240), "--json")
    assert (refused.code, refused.error["code"]) == (5, "does_not_fit")
    assert "llmctl fit" in refused.error["hint"]
    nothing = llmctl("up", profile(llmctl, starter_gguf, "partial", 1), "--json")
    assert (nothing.code, nothing.error["code"]) == (5, "does_not_fit")
    asked = profile(llmctl, starter_gguf, "full", 240)
    accepted = llmctl("up", asked, "--allow-offload", "--json")
    assert (accepted.code, accepted.json["models"][0]["place"]) == (0, "partial")
    llmctl("down")


def test_pull_refuses_too(llmctl: Llmctl, ready: str, starter_gguf: Path, rpc_gpu: RpcGpu) -> None:
    """The server holds no model here: the stand-in has one client at a time, so a busy one shows nobody its memory."""
    llmctl.environ |= rpc_gpu.environ
    asked = Path(profile(llmctl, starter_gguf, "full", 240))
    text = asked.read_text()
    asked.write_text(text.replace("require: full", "require: none").replace("}\ngpu", ", resident: false}\ngpu"))
    assert llmctl("up", str(asked)).code == 0
    asked.write_text(text)
    pulled = llmctl("pull", str(starter_gguf), "--profile", str(asked), "--yes", "--json")
    assert pulled.code == 5, (pulled.out, pulled.err)
    assert pulled.error["code"] == "does_not_fit"
    assert llmctl("pull", str(starter_gguf), "--profile", str(asked), "--yes", "--allow-offload").code == 0
    llmctl("down")
