"""Where a model lies: what each combination of witnesses proves."""

from __future__ import annotations

import pytest

from llmctl.core.placement import Buffer, Claim, Proof, Witnesses, is_out_of_memory, judge, parse_buffers

MIB = 1 << 20
DIGEST = "d4dbffc6bb04cc4837f81e33a609978f3ec083272e1231c20b4e7030c87eccfb"
WEIGHTS = "sha256:a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

# Lines of a real ollama 0.34.0 log, with and without a device.
START = (
    f'level=INFO msg="starting llama-server" cmd="llama-server --model /m/blobs/{WEIGHTS.replace(":", "-")} -c 2048"'
)
ON_CPU = """
load_tensors: offloaded 19/19 layers to GPU
load_tensors:          CPU model buffer size =   222.51 MiB
load_tensors:   CPU_REPACK model buffer size =    12.66 MiB
llama_context:        CPU  output buffer size =     1.00 MiB
llama_kv_cache:        CPU KV buffer size =     6.00 MiB
llama_kv_cache:        CPU KV buffer size =    15.00 MiB
sched_reserve:        CPU compute buffer size =    20.77 MiB
"""
ON_DEVICE = """
load_tensors: offloaded 19/19 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   170.00 MiB
load_tensors: RPC0[127.0.0.1:50152] model buffer size =   235.16 MiB
llama_kv_cache: RPC0[127.0.0.1:50152] KV buffer size =     6.00 MiB
sched_reserve: RPC0[127.0.0.1:50152] compute buffer size =    30.51 MiB
sched_reserve:  CUDA_Host compute buffer size =    30.51 MiB
"""


def claim(size: int = 0, vram: int = 0, context: int | None = 2048, digest: str = DIGEST) -> Claim:
    return Claim(digest, context, size, vram)


CPU_BUFFERS = (Buffer("CPU", "model", 222 * MIB), Buffer("CPU_REPACK", "model", 12 * MIB))
GPU_BUFFERS = (Buffer("CPU_Mapped", "model", 170 * MIB), Buffer("CUDA0", "model", 235 * MIB))


@pytest.mark.parametrize(
    ("require", "seen", "verdict", "place"),
    [
        ("full", Witnesses(claim(500, 500), GPU_BUFFERS), "proved", "gpu"),
        ("full", Witnesses(claim(500, 500), None, gpu_process_bytes=500), "proved", "gpu"),
        ("full", Witnesses(claim(500, 500), None, gpu_difference_bytes=500), "proved", "gpu"),
        ("full", Witnesses(claim(500, 300), GPU_BUFFERS), "refuted", "partial"),
        ("partial", Witnesses(claim(500, 300), GPU_BUFFERS), "proved", "partial"),
        ("partial", Witnesses(claim(500, 0), CPU_BUFFERS), "refuted", "cpu"),
        # /api/ps claims all of it, because it could not read the runner's lines; nothing else can be read.
        ("full", Witnesses(claim(500, 500)), "unverified", "unknown"),
        # The claim is full and the runner's own lines say host memory: the claim is wrong.
        ("full", Witnesses(claim(500, 500), CPU_BUFFERS), "refuted", "cpu"),
        ("full", Witnesses(claim(500, 500), None, gpu_process_bytes=0), "refuted", "cpu"),
        ("full", Witnesses(claim(0, 0), CPU_BUFFERS), "refuted", "cpu"),
        ("none", Witnesses(claim(0, 0), CPU_BUFFERS), "proved", "cpu"),
        ("none", Witnesses(claim(0, 0)), "proved", "cpu"),
        ("none", Witnesses(None), "refuted", "unknown"),
        ("full", Witnesses(None), "refuted", "unknown"),
    ],
)
def test_what_the_witnesses_prove(require: str, seen: Witnesses, verdict: str, place: str) -> None:
    proof = judge(require, [DIGEST], 2048, seen)  # type: ignore[arg-type]
    assert (proof.verdict, proof.place) == (verdict, place)
    assert proof.reasons or proof.verdict == "proved"


def test_other_weights_or_another_context_are_refuted_whatever_is_required() -> None:
    other = judge("none", [DIGEST], 2048, Witnesses(claim(digest="0" * 64)))
    assert other.verdict == "refuted"
    assert "000000000000" in other.reasons[0]
    shorter = judge("none", [DIGEST], 4096, Witnesses(claim(context=2048)))
    assert shorter == Proof("refuted", "cpu", ("the loaded context is 2048, the profile asks for 4096",))


def test_buffer_lines_are_those_of_the_last_load_of_these_weights() -> None:
    other = START.replace("a5fd3b", "ffffff")
    log = f"{START}\n{ON_CPU}\n{START}\n{ON_DEVICE}\n{other}\n{ON_CPU}"
    found = parse_buffers(log, WEIGHTS)
    assert found is not None
    assert [(b.device, b.on_host) for b in found] == [
        ("CPU_Mapped", True),
        ("RPC0[127.0.0.1:50152]", False),
        ("RPC0[127.0.0.1:50152]", False),
        ("RPC0[127.0.0.1:50152]", False),
        ("CUDA_Host", True),
    ]
    assert found[1].size_bytes == round(235.16 * MIB)


def test_what_computes_pictures_is_told_apart_from_the_model() -> None:
    """As Ollama 0.34.0 logged them of a model with a projector."""
    on_gpu = (
        "reserve_compute_meta: RPC0[127.0.0.1:20414] compute buffer size =     0.09 MiB\n"
        "reserve_compute_meta:        CPU compute buffer size =     0.04 MiB"
    )
    seen = Witnesses(None, parse_buffers(f"{START}\n{ON_DEVICE}\n{on_gpu}", WEIGHTS))
    without = Witnesses(None, parse_buffers(f"{START}\n{ON_DEVICE}", WEIGHTS))
    assert seen.projector_bytes == round(0.09 * MIB)
    assert without.projector_bytes is None
    assert seen.buffer_bytes == (without.buffer_bytes or 0) + round(0.09 * MIB)
    # With --no-mmproj-offload only the second line is there.
    in_host = Witnesses(None, parse_buffers(f"{START}\n{ON_DEVICE}\n{on_gpu.splitlines()[1]}", WEIGHTS))
    assert in_host.projector_bytes == 0


def test_offloaded_19_of_19_is_no_witness() -> None:
    """The line is printed on a machine without any device too."""
    found = parse_buffers(f"{START}\n{ON_CPU}", WEIGHTS)
    assert found is not None
    assert all(buffer.on_host for buffer in found)


def test_a_log_without_the_load_is_unknown_not_empty() -> None:
    assert parse_buffers("", WEIGHTS) is None
    assert parse_buffers(ON_CPU, WEIGHTS) is None


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("llama-server reported out-of-memory during startup: cudaMalloc failed: out of memory", True),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 40 MiB: CUDAMALLOC FAILED", True),
        ("model 'x' not found", False),
    ],
)
def test_out_of_memory_texts(text: str, out: bool) -> None:
    assert is_out_of_memory(text) is out
