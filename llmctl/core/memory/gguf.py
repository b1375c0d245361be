"""The header of a GGUF file: metadata and tensor infos, without the weights.

The bytes come through a `read(offset, length)` callable: a local file, a blob or a remote range serve alike.
A header is untrusted: every count and length is held against the file's size and against fixed bounds before
anything is read or kept, so that no file costs more than a second or 200 MB, whatever it says.

Format: ggml/src/gguf.cpp of llama.cpp b10760. Big vocabularies are skipped over: only their length is kept.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from llmctl.core.memory.cursor import U32, U64, Cursor, GgufError, Read, Scalar
from llmctl.core.memory.ggml import FILE_TYPES, GUESSED, tensor_type

__all__ = ["Array", "Gguf", "GgufError", "Tensor", "Value", "parse"]

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAXIMUM_KEYS = 1 << 14
MAXIMUM_TENSORS = 1 << 16
MAXIMUM_DIMENSIONS = 4
KEPT_ELEMENTS = 1024

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}


@dataclass(frozen=True)
class Array:
    """An array in the metadata. `values` is None where it was too long to keep."""

    length: int
    values: tuple[Scalar, ...] | None = None


Value = Scalar | Array


@dataclass(frozen=True)
class Tensor:
    """One tensor. `offset` counts from the start of the data; `shape` has the row length first."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def elements(self) -> int:
        product = 1
        for length in self.shape:
            product *= length
        return product

    @property
    def type_name(self) -> str:
        return tensor_type(self.type_id).name

    @property
    def size_bytes(self) -> int | None:
        """None for a type that is unknown here."""
        kind = tensor_type(self.type_id)
        return None if kind.block_bytes is None else self.elements // kind.block_elements * kind.block_bytes


@dataclass(frozen=True)
class Gguf:
    """A header. `data_offset` is where the weights begin; `size_bytes` is the file's size."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    size_bytes: int

    @property
    def architecture(self) -> str | None:
        return self.text("general.architecture")

    @property
    def file_type(self) -> int | None:
        """`general.file_type`, without the flag that says a converter guessed it."""
        value = self.integer("general.file_type")
        return None if value is None else value & ~GUESSED

    @property
    def quantization(self) -> str | None:
        """The name of the file type, such as Q4_K_M. None where the file does not say, or it is unknown."""
        return None if self.file_type is None else FILE_TYPES.get(self.file_type)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def tensor_types(self) -> dict[str, int]:
        """How many tensors are of which type, the most frequent first."""
        return dict(Counter(tensor.type_name for tensor in self.tensors).most_common())

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


def parse(read: Read, size_bytes: int) -> Gguf:
    """Read a header. GgufError says which part is wrong, and where."""
    cursor = Cursor(read, size_bytes)
    version = _preamble(cursor)
    tensor_count = cursor.count("tensors", MAXIMUM_TENSORS, least_bytes=24)
    key_count = cursor.count("metadata keys", MAXIMUM_KEYS, least_bytes=13)
    metadata = _metadata(cursor, key_count)
    tensors = tuple(_tensors(cursor, tensor_count))
    alignment = _alignment(metadata)
    data_offset = -(-cursor.position // alignment) * alignment
    _check_places(tensors, alignment)
    for tensor in tensors:
        _check_extent(tensor, data_offset, alignment, size_bytes)
    return Gguf(version, metadata, tensors, data_offset, size_bytes)


def _preamble(cursor: Cursor) -> int:
    magic = cursor.take(4)
    if magic != MAGIC:
        raise GgufError(f"not a GGUF file: it begins with {magic!r}, not {MAGIC!r}")
    version = cursor.u32()
    if version & 0xFFFF == 0 and version:
        raise GgufError("a big-endian GGUF file; this machine needs a little-endian one")
    if version not in (2, 3):
        raise GgufError(f"GGUF version {version}; llama.cpp reads 2 and 3, so the model must be converted again")
    return version


def _metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for number in range(count):
        key = cursor.name(f"metadata key {number + 1} of {count}")
        if key in metadata:
            raise GgufError(f"the metadata key {key!r} stands in the file twice")
        cursor.what = f"the metadata key {key!r}"
        metadata[key] = _value(cursor, cursor.u32())
    return metadata


def _value(cursor: Cursor, kind: int) -> Value:
    if kind in _SCALARS:
        return cursor.unpack(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor)
    raise cursor.error(f"has the unknown value type {kind}")


def _array(cursor: Cursor) -> Array:
    kind, length = cursor.u32(), cursor.u64()
    if kind in _SCALARS:
        scalar = _SCALARS[kind]
        if length > KEPT_ELEMENTS:
            cursor.skip(length * scalar.size)
            return Array(length)
        cursor.keep(0, values=length)
        data = cursor.take(length * scalar.size)
        return Array(length, tuple(values[0] for values in scalar.iter_unpack(data)))
    if kind != _STRING:
        # gguf.cpp refuses an array of arrays too.
        raise cursor.error(f"is an array of value type {kind}; arrays hold numbers or texts")
    cursor.spend_strings(length)
    if length > KEPT_ELEMENTS:
        cursor.skip_strings(length)
        return Array(length)
    return Array(length, tuple(cursor.text() for _ in range(length)))


def _tensors(cursor: Cursor, count: int) -> Iterator[Tensor]:
    names = set()
    for number in range(count):
        name = cursor.name(f"tensor {number + 1} of {count}")
        if name in names:
            raise GgufError(f"the tensor {name!r} stands in the file twice")
        names.add(name)
        cursor.what = f"the tensor {name!r}"
        dimensions = cursor.u32()
        if dimensions > MAXIMUM_DIMENSIONS:
            raise cursor.error(f"has {dimensions} dimensions; at most {MAXIMUM_DIMENSIONS} are possible")
        shape = tuple(cursor.u64() for _ in range(dimensions))
        if 0 in shape:
            raise cursor.error("has a dimension of 0")
        tensor = Tensor(name, shape, cursor.u32(), cursor.u64())
        block = tensor_type(tensor.type_id).block_elements
        if (shape[0] if shape else 1) % block:
            raise cursor.error(f"has rows of {shape[:1]} elements, not a multiple of {block}")
        yield tensor


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise GgufError(f"`general.alignment` is {alignment!r}; it is a power of 2")
    return alignment


def _check_places(tensors: tuple[Tensor, ...], alignment: int) -> None:
    """Each tensor begins where the one before ends, padded (ggml/src/gguf.cpp:779 at b10760).

    The check ends at a type that is not known here, and so has no known size.
    """
    expected = 0
    for tensor in tensors:
        if tensor.offset != expected:
            raise GgufError(
                f"the tensor {tensor.name!r} begins at {tensor.offset:,}; the one before ends at {expected:,}"
            )
        if tensor.size_bytes is None:
            return
        expected += -(-tensor.size_bytes // alignment) * alignment


def _check_extent(tensor: Tensor, data_offset: int, alignment: int, size_bytes: int) -> None:
    if tensor.offset % alignment:
        raise GgufError(f"the tensor {tensor.name!r} begins at {tensor.offset}, not a multiple of {alignment}")
    end = data_offset + tensor.offset + (tensor.size_bytes or 0)
    if end > size_bytes:
        raise GgufError(
            f"the file is cut short: the tensor {tensor.name!r} ends at byte {end:,}, the file at {size_bytes:,}"
        )
