"""A projector for pictures as llama.cpp loads it: the smallest LLaVA there can be (tools/mtmd/clip.cpp, `mlp`)."""

from __future__ import annotations

import struct
from math import prod

from tests.memory.gguf_bytes import ARRAY, F32, STRING, U32, array, file, key, tensor, text

BOOL = 7
NAME = "clip.vision."
WIDTH, INNER, IMAGE, PATCH = 64, 256, 56, 14


def projector(embedding: int) -> bytes:
    """For a model whose embeddings have this length. All tensors are zeros in F32."""
    numbers = {
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "block_count": 1,
        "projection_dim": embedding,
        "attention.head_count": 2,
        "image_size": IMAGE,
        "patch_size": PATCH,
    }
    keys = [
        key("general.architecture", STRING, text("clip")),
        key("clip.projector_type", STRING, text("mlp")),
        key("clip.has_vision_encoder", BOOL, b"\1"),
        key(f"{NAME}attention.layer_norm_epsilon", F32, struct.pack("<f", 1e-5)),
        *(
            key(f"{NAME}image_{each}", ARRAY, array(F32, 3, struct.pack("<3f", 0.5, 0.5, 0.5)))
            for each in ("mean", "std")
        ),
        *(key(NAME + name, U32, struct.pack("<I", value)) for name, value in numbers.items()),
    ]
    tensors, end = [], 0
    for name, shape in shapes(embedding).items():
        tensors.append(tensor(name, shape, 0, end))
        end += -(-4 * prod(shape) // 32) * 32
    return file(keys, tensors, end)


def shapes(embedding: int) -> dict[str, tuple[int, ...]]:
    block: dict[str, tuple[int, ...]] = {
        **{f"attn_{each}.weight": (WIDTH, WIDTH) for each in ("q", "k", "v", "out")},
        **{f"attn_{each}.bias": (WIDTH,) for each in ("q", "k", "v", "out")},
        **{f"ln{each}.{part}": (WIDTH,) for each in (1, 2) for part in ("weight", "bias")},
        "ffn_up.weight": (WIDTH, INNER),
        "ffn_up.bias": (INNER,),
        "ffn_down.weight": (INNER, WIDTH),
        "ffn_down.bias": (WIDTH,),
    }
    return {
        "v.patch_embd.weight": (PATCH, PATCH, 3, WIDTH),
        "v.position_embd.weight": (WIDTH, (IMAGE // PATCH) ** 2),
        **{f"v.blk.0.{name}": shape for name, shape in block.items()},
        "mm.0.weight": (WIDTH, embedding),
        "mm.0.bias": (embedding,),
        "mm.2.weight": (embedding, embedding),
        "mm.2.bias": (embedding,),
    }
