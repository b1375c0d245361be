"""Compute buffers against the server's own figures: recorded, some measured again, and what must always hold."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from llmctl.core.memory.cache import kv_bytes
from llmctl.core.memory.compute import FAMILIES, Compute, compute_buffers
from llmctl.core.memory.gguf import parse
from llmctl.core.memory.settings import Overflow, Placement, Settings
from llmctl.core.memory.shape import Shape, from_gguf
from tests.memory import published
from tests.memory.computing import Record, cell_of, load, measured, mebibytes, predicted
from tests.parts.engine import InstalledEngine

RECORDS: dict[str, list[Record]] = defaultdict(list)
for _record in load():
    RECORDS[_record["model"]].append(_record)
LIVE = ("llama-3.3-70b", "qwen3-30b-a3b", "gemma-3-12b", "gpt-oss-20b", "phi-4-14b", "nomic-embed-text")
SMALL = ("llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-2-2b", "gemma-3-270m", "gpt-oss-20b", "mixtral-8x7b")
MIB = 1024 * 1024


@cache
def shape_of(name: str) -> Shape:
    """The shape that the published header says, without a file."""
    data = published.header(published.MODELS[name])
    return from_gguf(parse(lambda offset, length: data[offset : offset + length], 1 << 50))


def said(compute: Compute) -> object:
    """As a cell holds it."""
    if compute.refused:
        return "refused"
    return {"compute_mib": mebibytes(compute.bytes), "nodes": compute.nodes, "splits": compute.splits}


@pytest.mark.parametrize("model", RECORDS)
def test_every_recorded_buffer_node_and_split_is_what_the_server_printed(model: str) -> None:
    shape = shape_of(model)
    for record in RECORDS[model]:
        assert said(predicted(cell_of(record), shape)) == record["measured"], record["command"]


@pytest.mark.parametrize("model", RECORDS)
def test_leaving_equal_layers_out_changes_no_byte_and_no_count(model: str) -> None:
    shape = shape_of(model)
    for record in RECORDS[model]:
        short, whole = (predicted(cell_of(record), shape, whole=whole) for whole in (False, True))
        assert (short.bytes, short.nodes, short.refused) == (whole.bytes, whole.nodes, whole.refused)


def test_the_record_holds_what_was_predicted_before_it_was_measured() -> None:
    records = [record for records in RECORDS.values() for record in records]
    assert len(records) > 250
    assert all(record["predicted"] == record["measured"] for record in records)
    assert {shape_of(model).architecture for model in RECORDS} == FAMILIES.keys()


@pytest.mark.real("ollama", "rpc")
@pytest.mark.parametrize("model", LIVE)
def test_the_engine_that_is_here_says_the_same(model: str, engine: InstalledEngine, tmp_path: Path) -> None:
    file = published.write(published.MODELS[model], tmp_path / "shape.gguf")
    for record in RECORDS[model][:3]:
        now = measured(cell_of(record), file, engine.libraries / "llama-server")
        assert now == record["measured"], record["command"]


def in_q8_0(name: str) -> Shape:
    shape = shape_of(name)
    kinds = {12: 8, 14: 8}
    tensors = (replace(tensor, type_id=kinds.get(tensor.type_id, tensor.type_id)) for tensor in shape.tensors)
    return replace(shape, tensors=tuple(tensors))


# Two machines: an RTX with CUDA, and an MI300X, which shares CUDA's code; all of older builds (gguf-parser-go#45).
@pytest.mark.parametrize(
    ("model", "settings", "on_gpu", "gpu_mib", "host_mib"),
    [
        ("qwen3-4b", Settings(2048, parallel=4, unified=True), 99, 85.01, 28.02),
        ("qwen3-0.6b", Settings(4096, cache_k="q8_0", cache_v="q8_0"), 99, 32.09, 0),
        ("qwen3-0.6b", Settings(4096, cache_k="q8_0", cache_v="q8_0"), 14, 41.64, 0),
        ("olmoe-1b-7b", Settings(4096, cache_k="q8_0", cache_v="q8_0"), 99, 64.09, 0),
        ("olmoe-1b-7b", Settings(4096, cache_k="q8_0", cache_v="q8_0"), 8, 172.37, 0),
    ],
)
def test_on_cuda_the_bound_is_not_below_a_published_log(
    model: str, settings: Settings, on_gpu: int, gpu_mib: float, host_mib: float
) -> None:
    shape = in_q8_0(model)
    found = compute_buffers(shape, settings, Placement.last(shape.layers, on_gpu))
    assert found.exactness == "bound"
    assert found.bytes[1] >= gpu_mib * MIB
    assert found.bytes[0] >= host_mib * MIB


@pytest.mark.parametrize(
    ("model", "settings", "exactness"),
    [
        ("llama-3.1-8b", Settings(4096, cache_k="q8_0", cache_v="q8_0"), "bound"),
        ("llama-3.1-8b", Settings(4096, cache_k="q8_0"), "bound"),
        ("llama-3.1-8b", Settings(4096, cache_k="q8_0", flash_attention="on"), "unknown"),
        ("llama-3.1-8b", Settings(4096, cache_k="q5_1", cache_v="q5_1"), "unknown"),
        ("bge-small", Settings(512, embedding=True), "bound"),
    ],
)
def test_what_cuda_would_leave_to_the_host_has_no_figure(model: str, settings: Settings, exactness: str) -> None:
    shape = shape_of(model)
    assert compute_buffers(shape, settings, Placement.last(shape.layers, 99)).exactness == exactness


def test_where_cuda_lacks_a_head_length_auto_counts_without_flash_attention() -> None:
    """BGE's heads of 32: the scores of all heads are laid out."""
    shape, placement = shape_of("bge-small"), Placement.last(12, 13)
    sizes = [
        compute_buffers(shape, Settings(512, backend=backend, embedding=True), placement).bytes[1]
        for backend in ("rpc", "cuda")
    ]
    assert sizes[1] > 2 * sizes[0]


def test_an_unknown_architecture_has_no_figure() -> None:
    shape = replace(shape_of("llama-3.2-1b"), architecture="unheard-of")
    found = compute_buffers(shape, Settings(4096), Placement.last(16, 17))
    assert (found.exactness, found.bytes) == ("unknown", {})


def test_a_header_without_a_tensor_that_the_graph_needs_has_no_figure() -> None:
    shape = shape_of("llama-3.2-1b")
    shape = replace(shape, tensors=tuple(tensor for tensor in shape.tensors if "ffn_up" not in tensor.name))
    assert compute_buffers(shape, Settings(4096), Placement.last(16, 17)).exactness == "unknown"


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ("qwen3-8b", Settings(4096, cache_v="q8_0", flash_attention="off"), "flash attention"),
        ("qwen3-8b", Settings(4096, cache_k="q8_0", flash_attention="off"), None),
        ("phi-4-14b", Settings(4096, 1, cache_k="q8_0", cache_v="q8_0"), None),
        ("phi-4-14b", Settings(4096, 2, cache_k="q8_0", cache_v="q8_0"), "room for 2053 nodes"),
    ],
)
def test_what_the_engine_does_not_start_with_is_said(model: str, settings: Settings, reason: str | None) -> None:
    shape = shape_of(model)
    refused = compute_buffers(shape, settings, Placement.last(shape.layers, 0)).refused
    assert (refused is None) if reason is None else (refused is not None and reason in refused)


def cuda_and_rpc(name: str, context: int, parallel: int, kind: str, on_gpu: int, backend: str) -> None:
    shape = shape_of(name)
    settings = Settings(context, parallel, cache_k=kind, cache_v=kind, backend=backend)
    placement = Placement.last(shape.layers, min(on_gpu, shape.layers + 1))
    if shape.experts and on_gpu > shape.layers:
        placement = replace(placement, overflow=tuple(Overflow(layer, "experts", 0) for layer in range(context % 7)))
    short, whole = (compute_buffers(shape, settings, placement, whole=whole) for whole in (False, True))
    assert (short.bytes, short.nodes) == (whole.bytes, whole.nodes)


@profile(max_examples=60, deadline=None)
@given(
    st.sampled_from(SMALL),
    st.integers(256, 70000),
    st.integers(1, 5),
    st.sampled_from(("f16", "q8_0")),
    st.integers(0, 40),
    st.sampled_from(("rpc", "cuda")),
)
def test_leaving_equal_layers_out_is_safe_everywhere(
    name: str, context: int, parallel: int, kind: str, on_gpu: int, backend: str
) -> None:
    cuda_and_rpc(name, context, parallel, kind, on_gpu, backend)


def whole_need(name: str, settings: Settings) -> int:
    """Cache and compute on the GPU, everything there."""
    shape = shape_of(name)
    placement = Placement.last(shape.layers, shape.layers + 1)
    return compute_buffers(shape, settings, placement).bytes[1] + kv_bytes(shape, settings, placement)[1]


SETTINGS = st.builds(
    Settings,
    context=st.integers(512, 100000),
    parallel=st.integers(1, 4),
    ubatch=st.sampled_from((512, 1024, 2048)),
    cache_k=st.sampled_from(("f16", "q8_0", "q4_0")),
    flash_attention=st.sampled_from(("on", "off")),
    backend=st.sampled_from(("rpc", "cuda")),
).map(
    lambda chosen: chosen if chosen.backend == "rpc" else replace(chosen, cache_v=chosen.cache_k, flash_attention="on")
)


@profile(max_examples=80, deadline=None)
@given(st.sampled_from(SMALL), SETTINGS, st.integers(1, 20000))
def test_more_context_never_needs_less(name: str, settings: Settings, more: int) -> None:
    assert whole_need(name, replace(settings, context=settings.context + more)) >= whole_need(name, settings)


@profile(max_examples=80, deadline=None)
@given(st.sampled_from(SMALL), SETTINGS)
def test_more_slots_never_need_less(name: str, settings: Settings) -> None:
    assert whole_need(name, replace(settings, parallel=settings.parallel + 1)) >= whole_need(name, settings)


@profile(max_examples=80, deadline=None)
@given(st.sampled_from(SMALL), SETTINGS)
def test_a_wider_cache_never_needs_less(name: str, settings: Settings) -> None:
    settings = replace(settings, context=settings.context + 8192, flash_attention="on")
    needs = [whole_need(name, replace(settings, cache_k=kind, cache_v=kind)) for kind in ("q4_0", "q8_0", "f16")]
    assert needs == sorted(needs)
