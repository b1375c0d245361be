"""A model in several files: the first has the metadata, each has some of the tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from llmctl.core.memory.gguf import Gguf, GgufError

# llama.cpp's own pattern (src/llama.cpp, llama_split_path).
NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
MOST_PARTS = 512


def part_names(name: str) -> tuple[str, ...]:
    """The files that belong together, in order; the name alone where it is no part of several."""
    found = NAME.fullmatch(name)
    if found is None:
        return (name,)
    count = int(found["count"])
    if not 0 < int(found["number"]) <= count <= MOST_PARTS:
        raise GgufError(f"{name} is no part of {count} files that llama.cpp would read")
    return tuple(f"{found['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))


def merged(headers: Sequence[Gguf]) -> Gguf:
    """One header for the whole model. GgufError where the parts do not belong together."""
    first = headers[0]
    if len(headers) == 1:
        if (first.integer("split.count") or 1) > 1:
            raise GgufError(f"this is one of {first.integer('split.count')} files; the others are missing beside it")
        return first
    for number, part in enumerate(headers):
        if (part.integer("split.no"), part.integer("split.count")) != (number, len(headers)):
            raise GgufError(f"file {number + 1} of {len(headers)} says it is another part")
    tensors = tuple(tensor for part in headers for tensor in part.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise GgufError("the same tensor stands in two of the files")
    return replace(first, tensors=tensors, size_bytes=sum(part.size_bytes for part in headers))
