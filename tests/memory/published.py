"""The shapes of published models as sparse GGUF files: a real header, no weights, some 40 KB on disk.

The lengths are those of each model's config.json, the names and keys those of llama.cpp b10760's converter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.memory import gguf_bytes as gguf

_TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q6_k": (14, 256, 210)}
_TYPES["mxfp4"] = (39, 32, 17)
_BOOL = 7

Infos = list[tuple[str, str, tuple[int, ...]]]


@dataclass(frozen=True)
class Model:
    """A published model. `head` is the length of a key and a value; `more` are further keys of the architecture."""

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int
    context: int
    tied: bool = False
    more: dict[str, int | float | bool] = field(default_factory=dict)
    options: frozenset[str] = frozenset()


def _common(model: Model) -> Infos:
    infos: Infos = [("token_embd.weight", "q6_k" if model.tied else "q4_k", (model.width, model.vocabulary))]
    infos.append(("output_norm.weight", "f32", (model.width,)))
    if not model.tied:
        infos.append(("output.weight", "q6_k", (model.width, model.vocabulary)))
    return infos


def _attention(model: Model, prefix: str) -> Infos:
    e, q, k = model.width, model.heads * model.head, model.kv_heads * model.head
    infos: Infos = [(prefix + "attn_norm.weight", "f32", (e,))]
    if "fused_qkv" in model.options:
        infos.append((prefix + "attn_qkv.weight", "q4_k", (e, q + 2 * k)))
    else:
        for name, rows in (("q", q), ("k", k), ("v", k)):
            infos.append((f"{prefix}attn_{name}.weight", "q4_k", (e, rows)))
            if "qkv_bias" in model.options:
                infos.append((f"{prefix}attn_{name}.bias", "f32", (rows,)))
    infos.append((prefix + "attn_output.weight", "q4_k", (q, e)))
    if "output_bias" in model.options:
        infos.append((prefix + "attn_output.bias", "f32", (e,)))
    if "qk_norm" in model.options:
        infos += [(f"{prefix}attn_{name}_norm.weight", "f32", (model.head,)) for name in "qk"]
    if "qk_norm_heads" in model.options:
        infos += [
            (f"{prefix}attn_{name}_norm.weight", "f32", (model.head, heads))
            for name, heads in (("q", model.heads), ("k", model.kv_heads))
        ]
    if "qk_norm_rows" in model.options:
        infos += [(f"{prefix}attn_{name}_norm.weight", "f32", (rows,)) for name, rows in (("q", q), ("k", k))]
    if "sinks" in model.options:
        infos.append((prefix + "attn_sinks.weight", "f32", (model.heads,)))
    return infos


def _feed_forward(model: Model, prefix: str) -> Infos:
    e, inner = model.width, model.inner
    infos: Infos = []
    if "no_ffn_norm" not in model.options:
        infos.append((prefix + "ffn_norm.weight", "f32", (e,)))
    if "gate_in_up" in model.options:
        inner_up = 2 * inner
    else:
        inner_up = inner
        infos.append((prefix + "ffn_gate.weight", "q4_k", (e, inner)))
    infos += [(prefix + "ffn_up.weight", "q4_k", (e, inner_up)), (prefix + "ffn_down.weight", "q4_k", (inner, e))]
    if "post_norms" in model.options:
        infos.append((prefix + "post_attention_norm.weight", "f32", (e,)))
        infos.append((prefix + "post_ffw_norm.weight", "f32", (e,)))
    return infos


def _experts(model: Model, prefix: str) -> Infos:
    e, count = model.width, int(model.more["expert_count"])
    inner = int(model.more.get("expert_feed_forward_length", model.inner))
    kind = "mxfp4" if "expert_bias" in model.options else "q4_k"
    norm = "post_attention_norm" if "sinks" in model.options else "ffn_norm"
    infos: Infos = [(f"{prefix}{norm}.weight", "f32", (e,)), (prefix + "ffn_gate_inp.weight", "f32", (e, count))]
    for name, shape in (("gate", (e, inner)), ("up", (e, inner)), ("down", (inner, e))):
        infos.append((f"{prefix}ffn_{name}_exps.weight", kind, (*shape, count)))
        if "expert_bias" in model.options:
            infos.append((f"{prefix}ffn_{name}_exps.bias", "f32", (shape[1], count)))
    if "expert_bias" in model.options:
        infos.append((prefix + "ffn_gate_inp.bias", "f32", (count,)))
    return infos


def _decoder(model: Model) -> Infos:
    infos = _common(model)
    if "rope_factors" in model.options:
        infos.append(("rope_freqs.weight", "f32", (model.head // 2,)))
    if "rope_long_short" in model.options:
        infos += [(f"rope_factors_{name}.weight", "f32", (model.head // 2,)) for name in ("long", "short")]
    for layer in range(model.layers):
        prefix = f"blk.{layer}."
        infos += _attention(model, prefix)
        infos += (_experts if "expert_count" in model.more else _feed_forward)(model, prefix)
    return infos


def _bert(model: Model) -> Infos:
    e, inner = model.width, model.inner
    infos: Infos = [("token_embd.weight", "f16", (e, model.vocabulary)), ("token_types.weight", "f32", (e, 2))]
    infos += [("token_embd_norm.weight", "f32", (e,)), ("token_embd_norm.bias", "f32", (e,))]
    if model.architecture == "bert":
        infos.append(("position_embd.weight", "f32", (e, model.context)))
    biases = model.architecture != "nomic-bert"
    for layer in range(model.layers):
        prefix = f"blk.{layer}."
        names = [("attn_output", (e, e)), *((f"attn_{name}", (e, e)) for name in "qkv")]
        if model.architecture != "bert":
            names[1:] = [("attn_qkv", (e, 3 * e))]
        if int(model.more.get("moe_every_n_layers", 0)) and layer % 2:
            count = int(model.more["expert_count"])
            infos.append((prefix + "ffn_gate_inp.weight", "f32", (e, count)))
            infos.append((prefix + "ffn_up_exps.weight", "f16", (e, inner, count)))
            infos.append((prefix + "ffn_down_exps.weight", "f16", (inner, e, count)))
        else:
            names += [("ffn_up", (e, inner)), ("ffn_down", (inner, e))]
            names += [("ffn_gate", (e, inner))] if model.architecture == "nomic-bert" else []
        for name, shape in names:
            infos.append((f"{prefix}{name}.weight", "f16", shape))
            if biases:
                infos.append((f"{prefix}{name}.bias", "f32", (shape[1],)))
        for name in ("attn_output_norm", "layer_output_norm"):
            infos += [(f"{prefix}{name}.weight", "f32", (e,)), (f"{prefix}{name}.bias", "f32", (e,))]
    return infos


_BUILDERS: dict[str, Callable[[Model], Infos]] = {"bert": _bert, "nomic-bert": _bert, "nomic-bert-moe": _bert}


def _keys(model: Model) -> dict[str, str | int | float | bool]:
    prefix = model.architecture + "."
    keys: dict[str, str | int | float | bool] = {
        "general.architecture": model.architecture,
        "general.name": "shape",
        "general.quantization_version": 2,
        "general.file_type": 15,
        "tokenizer.ggml.model": "no_vocab",
        "tokenizer.ggml.token_type_count": 2,
        prefix + "vocab_size": model.vocabulary,
        prefix + "block_count": model.layers,
        prefix + "context_length": model.context,
        prefix + "embedding_length": model.width,
        prefix + "feed_forward_length": model.inner,
        prefix + "attention.head_count": model.heads,
        prefix + "attention.head_count_kv": model.kv_heads,
        prefix + "attention.key_length": model.head,
        prefix + "attention.value_length": model.head,
        prefix + "attention.layer_norm_rms_epsilon": 1e-5,
        prefix + "attention.layer_norm_epsilon": 1e-5,
        prefix + "rope.dimension_count": model.head,
        prefix + "rope.freq_base": 500000.0,
    }
    return keys | {prefix + name: value for name, value in model.more.items()}


def _key(name: str, value: str | int | float | bool) -> bytes:
    if isinstance(value, str):
        return gguf.key(name, gguf.STRING, gguf.text(value))
    if isinstance(value, bool):
        return gguf.key(name, _BOOL, struct.pack("<?", value))
    if isinstance(value, int):
        return gguf.key(name, gguf.U32, struct.pack("<I", value))
    return gguf.key(name, gguf.F32, struct.pack("<f", value))


def header(model: Model) -> bytes:
    """The file without its weights."""
    return _laid_out(model)[0]


def write(model: Model, path: Path) -> Path:
    """The sparse file of a model."""
    data, weights = _laid_out(model)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + weights)
    return path


def _laid_out(model: Model) -> tuple[bytes, int]:
    offset, tensors = 0, []
    for name, kind, shape in _BUILDERS.get(model.architecture, _decoder)(model):
        type_id, block, size = _TYPES[kind]
        if shape[0] % block:
            type_id, block, size = _TYPES["q8_0" if shape[0] % 32 == 0 else "f16"]
        tensors.append(gguf.tensor(name, shape, type_id, offset))
        elements = 1
        for length in shape:
            elements *= length
        offset += -(-(elements // block * size) // 32) * 32
    return gguf.file([_key(name, value) for name, value in _keys(model).items()], tensors), offset


def _with(*options: str) -> frozenset[str]:
    return frozenset(options)


MODELS = {
    "llama-3.2-1b": Model(
        "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, tied=True, options=_with("rope_factors")
    ),
    "llama-3.2-3b": Model(
        "llama", 28, 3072, 24, 8, 128, 8192, 128256, 131072, tied=True, options=_with("rope_factors")
    ),
    "llama-3.1-8b": Model("llama", 32, 4096, 32, 8, 128, 14336, 128256, 131072, options=_with("rope_factors")),
    "llama-3.3-70b": Model("llama", 80, 8192, 64, 8, 128, 28672, 128256, 131072, options=_with("rope_factors")),
    "mistral-7b": Model("llama", 32, 4096, 32, 8, 128, 14336, 32768, 32768),
    "mistral-nemo-12b": Model("llama", 40, 5120, 32, 8, 128, 14336, 131072, 131072),
    "mistral-small-24b": Model("llama", 40, 5120, 32, 8, 128, 32768, 131072, 131072),
    "mixtral-8x7b": Model(
        "llama", 32, 4096, 32, 8, 128, 14336, 32000, 32768, more={"expert_count": 8, "expert_used_count": 2}
    ),
    "qwen2.5-0.5b": Model("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, tied=True, options=_with("qkv_bias")),
    "qwen2.5-7b": Model("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, options=_with("qkv_bias")),
    "qwen2.5-32b": Model("qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 32768, options=_with("qkv_bias")),
    "qwen3-0.6b": Model("qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 40960, tied=True, options=_with("qk_norm")),
    "qwen3-4b": Model("qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 40960, tied=True, options=_with("qk_norm")),
    "qwen3-8b": Model("qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 40960, options=_with("qk_norm")),
    "qwen3-14b": Model("qwen3", 40, 5120, 40, 8, 128, 17408, 151936, 40960, options=_with("qk_norm")),
    "qwen3-32b": Model("qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 40960, options=_with("qk_norm")),
    "qwen3-30b-a3b": Model(
        "qwen3moe", 48, 2048, 32, 4, 128, 6144, 151936, 40960, options=_with("qk_norm"),
        more={"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768},
    ),
    "olmoe-1b-7b": Model(
        "olmoe", 16, 2048, 16, 16, 128, 1024, 50304, 4096, options=_with("qk_norm_rows"),
        more={"expert_count": 64, "expert_used_count": 8},
    ),
    "gemma-2-2b": Model(
        "gemma2", 26, 2304, 8, 4, 256, 9216, 256000, 8192, tied=True, options=_with("post_norms"),
        more={"attention.sliding_window": 4096},
    ),
    "gemma-2-9b": Model(
        "gemma2", 42, 3584, 16, 8, 256, 14336, 256000, 8192, tied=True, options=_with("post_norms"),
        more={"attention.sliding_window": 4096},
    ),
    "gemma-2-27b": Model(
        "gemma2", 46, 4608, 32, 16, 128, 36864, 256000, 8192, tied=True, options=_with("post_norms"),
        more={"attention.sliding_window": 4096},
    ),
    "gemma-3-270m": Model(
        "gemma3", 18, 640, 4, 1, 256, 2048, 262144, 32768, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 512},
    ),
    "gemma-3-1b": Model(
        "gemma3", 26, 1152, 4, 1, 256, 6912, 262144, 32768, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 512},
    ),
    "gemma-3-4b": Model(
        "gemma3", 34, 2560, 8, 4, 256, 10240, 262208, 131072, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 1024},
    ),
    "gemma-3-12b": Model(
        "gemma3", 48, 3840, 16, 8, 256, 15360, 262208, 131072, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 1024},
    ),
    "gemma-3-27b": Model(
        "gemma3", 62, 5376, 32, 16, 128, 21504, 262208, 131072, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 1024},
    ),
    "gpt-oss-20b": Model(
        "gpt-oss", 24, 2880, 64, 8, 64, 2880, 201088, 131072,
        options=_with("qkv_bias", "output_bias", "sinks", "expert_bias"),
        more={"expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880,
              "attention.sliding_window": 128},
    ),
    "gpt-oss-120b": Model(
        "gpt-oss", 36, 2880, 64, 8, 64, 2880, 201088, 131072,
        options=_with("qkv_bias", "output_bias", "sinks", "expert_bias"),
        more={"expert_count": 128, "expert_used_count": 4, "expert_feed_forward_length": 2880,
              "attention.sliding_window": 128},
    ),
    "phi-3-mini": Model(
        "phi3", 32, 3072, 32, 32, 96, 8192, 32064, 131072, options=_with("fused_qkv", "gate_in_up", "rope_long_short"),
        more={"attention.sliding_window": 262144, "rope.scaling.original_context_length": 4096},
    ),
    "phi-4-14b": Model(
        "phi3", 40, 5120, 40, 10, 128, 17920, 100352, 16384, options=_with("fused_qkv", "gate_in_up"),
    ),
    "glm-4-9b": Model(
        "glm4", 40, 4096, 32, 2, 128, 13696, 151552, 32768, options=_with("qkv_bias", "gate_in_up", "post_norms")
    ),
    "glm-4-32b": Model(
        "glm4", 61, 6144, 48, 8, 128, 23040, 151552, 32768, options=_with("gate_in_up", "post_norms")
    ),
    "command-r-35b": Model(
        "command-r", 40, 8192, 64, 64, 128, 22528, 256000, 131072, tied=True, options=_with("no_ffn_norm"),
        more={"logit_scale": 0.0625},
    ),
    "command-r-08-2024": Model(
        "command-r", 40, 8192, 64, 8, 128, 24576, 256000, 131072, tied=True, options=_with("no_ffn_norm"),
        more={"logit_scale": 0.0625},
    ),
    "command-r7b": Model(
        "cohere2", 32, 4096, 32, 8, 128, 14336, 256000, 132096, tied=True, options=_with("no_ffn_norm"),
        more={"logit_scale": 0.25, "attention.sliding_window": 4096},
    ),
    "ministral-3-8b": Model(
        "mistral3", 34, 4096, 32, 8, 128, 14336, 131072, 262144, options=_with("rope_factors"),
        more={"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 16384},
    ),
    "command-r-plus": Model(
        "command-r", 64, 12288, 96, 8, 128, 33792, 256000, 131072, tied=True,
        options=_with("no_ffn_norm", "qk_norm_heads"), more={"logit_scale": 0.8333},
    ),
    "bge-small": Model(
        "bert", 12, 384, 12, 12, 32, 1536, 30522, 512, more={"attention.causal": False, "pooling_type": 2}
    ),
    "bge-large": Model(
        "bert", 24, 1024, 16, 16, 64, 4096, 30522, 512, more={"attention.causal": False, "pooling_type": 2}
    ),
    "all-minilm-l6": Model(
        "bert", 6, 384, 12, 12, 32, 1536, 30522, 512, more={"attention.causal": False, "pooling_type": 1}
    ),
    "nomic-embed-text": Model(
        "nomic-bert", 12, 768, 12, 12, 64, 3072, 30522, 2048, more={"attention.causal": False, "pooling_type": 1}
    ),
    "nomic-embed-text-v2-moe": Model(
        "nomic-bert-moe", 12, 768, 12, 12, 64, 3072, 250048, 512,
        more={"attention.causal": False, "pooling_type": 1, "expert_count": 8, "expert_used_count": 2,
              "moe_every_n_layers": 2},
    ),
    "embedding-gemma-300m": Model(
        "gemma-embedding", 24, 768, 3, 1, 256, 1152, 262144, 2048, tied=True, options=_with("post_norms", "qk_norm"),
        more={"attention.sliding_window": 512, "pooling_type": 1},
    ),
    "qwen3-embedding-0.6b": Model(
        "qwen3", 28, 1024, 16, 8, 128, 3072, 151669, 32768, tied=True, options=_with("qk_norm"),
        more={"pooling_type": 3},
    ),
}  # fmt: skip
EMBEDDING = frozenset(name for name, model in MODELS.items() if "pooling_type" in model.more)
