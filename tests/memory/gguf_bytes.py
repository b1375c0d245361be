"""GGUF bytes for tests: each part can be made wrong on its own."""

from __future__ import annotations

import struct

STRING, ARRAY, U8, U32, U64, F32 = 8, 9, 0, 4, 10, 6


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, data: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + data


def array(kind: int, count: int, data: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + data


def tensor(name: str, shape: tuple[int, ...], type_id: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", type_id, offset)


def file(
    keys: list[bytes],
    tensors: list[bytes],
    data_bytes: int = 0,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    header = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    padding = -len(header) % 32 if tensors else 0
    return header + bytes(padding + data_bytes)


def small() -> bytes:
    """A whole file with one of each: about 500 bytes of header, two tensors."""
    keys = [
        key("general.architecture", STRING, text("llama")),
        key("general.file_type", U32, struct.pack("<I", 15)),
        key("llama.rope.freq_base", F32, struct.pack("<f", 10000.0)),
        key("general.tags", ARRAY, array(STRING, 2, text("a") + text("b"))),
        key("llama.attention.head_count_kv", ARRAY, array(U32, 3, struct.pack("<3I", 8, 8, 4))),
        key("tokenizer.ggml.tokens", ARRAY, array(STRING, 2000, text("tok") * 2000)),
        key("tokenizer.ggml.scores", ARRAY, array(F32, 2000, bytes(8000))),
    ]
    tensors = [tensor("blk.0.w", (256, 2), 12, 0), tensor("blk.0.norm", (8,), 0, 288)]
    return file(keys, tensors, 288 + 32)
