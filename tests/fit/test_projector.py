"""A model for pictures: what is predicted of it is what a real runner, which really loads its projector, says."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from llmctl.core.memory.decide import Card
from llmctl.core.placement import Claim, Witnesses, parse_buffers
from llmctl.core.prediction import claim_apart, findings
from llmctl.core.profile import GpuSpec, ModelSpec, Profile, ServerSpec
from llmctl.workflows import fit, gate
from tests.conftest import StartOllama
from tests.memory.projector_bytes import projector
from tests.parts import starter
from tests.parts.ollama import OllamaServer
from tests.parts.rpc import RpcGpu

pytestmark = pytest.mark.real("ollama", "model", "rpc")

MIB, GIB = 1 << 20, 1 << 30
NAME = "pictures"
# Of the starter's embeddings.
LENGTH = 640


def made(server: OllamaServer) -> None:
    """The starter's weights with a projector beside them, as `ollama create` makes it of two files."""
    content = projector(LENGTH)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    assert server.request("POST", f"/api/blobs/{digest}", content)[0] == 201
    files = {"model.gguf": f"sha256:{starter.SHA256}", "mmproj.gguf": digest}
    server.post("/api/create", {"model": NAME, "files": files, "template": "{{ .Prompt }}"})


def witnesses(server: OllamaServer, *, num_gpu: int) -> Witnesses:
    """After a load of the model: the runner's lines, and what /api/ps says."""
    server.post("/api/generate", {"model": NAME, "options": {"num_gpu": num_gpu}})
    shown = server.ps(f"{NAME}:latest")
    claim = Claim(shown["digest"], shown["context_length"], shown["size"], shown["size_vram"])
    return Witnesses(claim, parse_buffers(server.log, f"sha256:{starter.SHA256}"))


def test_the_projector_counts_with_the_model_it_belongs_to(ollama_server: StartOllama, rpc_gpu: RpcGpu) -> None:
    server = ollama_server({**rpc_gpu.environ, "LLAMA_ARG_FIT": "off"}, with_starter=True)
    made(server)
    spec = ModelSpec(NAME)
    profile = Profile("mine", (spec,), server=ServerSpec(context=2048), gpu=GpuSpec("full"))
    source = fit.find_spec(spec, server.models, here_only=True)
    machine = fit.Machine((Card("RPC0", 24 * GIB, 24 * GIB),), gate.host(), "0.34.0")
    expected = gate.check(spec, source, profile, gate.Seen(machine, "rpc", learnt=True), "full").predicted
    assert expected is not None

    seen = witnesses(server, num_gpu=999)
    printed = re.search(r"load_hparams: model size:\s+([0-9.]+) MiB", server.log)
    assert printed is not None
    assert f"{expected.projector_bytes / MIB:.2f}" == printed[1]
    assert seen.claim is not None
    assert seen.buffer_bytes is not None
    assert seen.projector_bytes
    assert expected.slack_bytes == 0
    assert findings(expected, seen) == ()
    assert claim_apart(expected, seen.claim.size_vram_bytes, seen.projector_bytes) == ()
    # The claim has what computes pictures and not what was loaded for them.
    assert abs(seen.claim.size_vram_bytes - (seen.buffer_bytes - expected.lost_bytes)) < MIB
    # The same figure without the lines told apart would be a finding, were the buffer as large as a real one's.
    (buffer,) = [one for one in seen.buffers or () if one.kind == "projector" and not one.on_host]
    larger = replace(seen, buffers=(*(seen.buffers or ()), replace(buffer, size_bytes=200 * MIB)))
    assert findings(expected, larger) == ()
    assert findings(
        expected, replace(larger, buffers=tuple(replace(one, kind="compute") for one in larger.buffers or ()))
    )

    # Ollama keeps the projector in host memory where a part of the model lies there.
    assert witnesses(server, num_gpu=3).projector_bytes == 0
