"""What differs between two manifests of one name: which parts, and their blobs on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from llmctl.core.pin import Layer

CONFIG = "config"
# Media types of ollama v0.34.0 manifest/layer.go, as a person calls what they carry.
NAMES = {"model": "weights", "params": "parameters", "license": "licence"}
ORDER = ("weights", "adapter", "projector", "draft", "template", "parameters", "system", "licence")
SHORT_DIGITS = 12
NONE = "-"


@dataclass(frozen=True)
class Change:
    """One part that is not what it was. None on a side that has no such part."""

    part: str
    was: Layer | None
    now: Layer | None


def part_of(layer: Layer) -> str:
    """What a layer is, from its media type; an unknown one keeps the end of its own name."""
    kind = layer.media_type.rpartition("/")[2].rpartition(".")[2] or layer.media_type
    return NAMES.get(kind, kind)[:20]


def changes(
    was: Iterable[Layer], was_config: Layer | None, now: Iterable[Layer], now_config: Layer | None
) -> tuple[Change, ...]:
    """The parts that differ, the weights first. A part that lies in several blobs is paired in their order."""
    old, new = _by_part(was, was_config), _by_part(now, now_config)
    found = []
    for part in sorted({*old, *new}, key=_rank):
        kept = {layer.digest for layer in old.get(part, ())} & {layer.digest for layer in new.get(part, ())}
        gone = [layer for layer in old.get(part, ()) if layer.digest not in kept]
        come = [layer for layer in new.get(part, ()) if layer.digest not in kept]
        found += [Change(part, before, after) for before, after in zip_longest(gone, come)]
    return tuple(found)


def _by_part(layers: Iterable[Layer], config: Layer | None) -> dict[str, list[Layer]]:
    parts: dict[str, list[Layer]] = {}
    for layer in layers:
        parts.setdefault(part_of(layer), []).append(layer)
    if config is not None:
        parts[CONFIG] = [config]
    return parts


def _rank(part: str) -> tuple[int, str]:
    known = ORDER.index(part) if part in ORDER else len(ORDER)
    return (len(ORDER) + 1 if part == CONFIG else known, part)


def side_by_side(was: str, now: str, found: Sequence[Change]) -> list[str]:
    """Old and new in two columns, each part with its short digest and below it its size. 38 columns wide.

    `was` and `now` are the digests of the manifests.
    """
    rows = [("", "pinned", "now"), ("manifest", short(was), short(now))]
    for change in found:
        rows.append((change.part, _digest(change.was), _digest(change.now)))
        rows.append(("", _size(change.was), _size(change.now)))
    width = max(len(row[0]) for row in rows)
    return [f"{part:<{width}}  {left:<{SHORT_DIGITS}}  {right}".rstrip() for part, left, right in rows]


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHORT_DIGITS]


def size_words(size_bytes: int) -> str:
    """A download's size as registries say it, in powers of ten."""
    if size_bytes >= 1_000_000:
        return f"{size_bytes / 1e6:,.0f} MB"
    return f"{size_bytes:,} B"


def _digest(layer: Layer | None) -> str:
    return short(layer.digest) if layer else NONE


def _size(layer: Layer | None) -> str:
    return size_words(layer.size_bytes) if layer else ""
