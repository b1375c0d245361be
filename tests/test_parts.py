"""The real parts are what the other tests believe them to be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.parts import process
from tests.parts.ollama import STARTER, OllamaServer
from tests.parts.rpc import NOTHING_FITS, RpcGpu


@pytest.mark.real("ollama", "model")
def test_the_starter_answers(ollama_with_starter: OllamaServer) -> None:
    answer = ollama_with_starter.post(
        "/api/generate",
        {"model": STARTER, "prompt": "The capital of France is", "options": {"num_predict": 8, "temperature": 0}},
    )
    assert answer["response"].strip()
    assert answer["eval_count"] > 0
    assert ollama_with_starter.ps()["context_length"] == 2048


@pytest.mark.real("ollama", "model", "rpc")
def test_the_model_lies_on_the_stand_in_gpu(ollama_server: StartOllama, rpc_gpu: RpcGpu) -> None:
    server = ollama_server(rpc_gpu.environ, with_starter=True)
    server.post("/api/generate", {"model": STARTER})
    loaded = server.ps()
    assert loaded["size_vram"] > 0
    assert loaded["size_vram"] == loaded["size"]
    assert "RPC0" in server.log
    assert rpc_gpu.alive


@pytest.mark.real("ollama", "model", "rpc")
def test_what_does_not_fit_goes_to_the_cpu_without_a_word(ollama_server: StartOllama, rpc_gpu: RpcGpu) -> None:
    server = ollama_server(rpc_gpu.environ | NOTHING_FITS, with_starter=True)
    answer = server.post("/api/generate", {"model": STARTER})
    assert answer["done_reason"] == "load"
    assert server.ps()["size_vram"] == 0


@pytest.mark.real("ollama", "model", "rpc")
def test_with_fit_off_everything_goes_to_the_device(ollama_server: StartOllama, rpc_gpu: RpcGpu) -> None:
    server = ollama_server(rpc_gpu.environ | NOTHING_FITS | {"LLAMA_ARG_FIT": "off"}, with_starter=True)
    server.post("/api/generate", {"model": STARTER})
    assert server.ps()["size_vram"] > 0


@pytest.mark.real("tmpfs")
def test_a_small_disk_fills_up(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 20)
    with pytest.raises(OSError) as full:
        (disk / "large").write_bytes(bytes(2 << 20))
    assert full.value.errno == errno.ENOSPC


def test_the_guard_finds_a_detached_process(home: Path) -> None:
    # The program ends at once; what it started lives on without a parent.
    program = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=2).pid)"
    pid = int(subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout)
    left = process.end_leftovers(home, patience_seconds=0)
    assert left == [f"{pid}: sleep 600"]


def test_nothing_of_the_machine_gets_in(home: Path) -> None:
    assert Path.home() == home
    assert not [name for name in os.environ if name.startswith(("OLLAMA_", "LLAMA_ARG_"))]
    assert [name for name in os.environ if name.startswith("LLMCTL_")] == ["LLMCTL_ENGINES_DIR"]
