"""The keys of a lock file, once: what refuses a damaged one, and the JSON Schema for editors and reviews."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.core.kinds import Key, KeyPath, Kind, OneOf, Problem, Section, Text, Whole, show

SCHEMA = 1
SOURCES = ("registry", "starter", "file")
# What JSON keeps exact in every language.
LARGEST_NUMBER = 2**53 - 1
MOST_LAYERS = 4096
MOST_MODELS = 10_000


@dataclass(frozen=True)
class OrNull:
    """What `kind` allows, or null for what is not known."""

    kind: Kind

    @property
    def allowed(self) -> str:
        return f"{self.kind.allowed}, or null"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if value is not None:
            yield from self.kind.problems(value, path)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [self.kind.json_schema(), {"type": "null"}]}


@dataclass(frozen=True)
class Rows:
    """A list that may be empty."""

    kind: Kind
    noun: str
    most: int

    @property
    def allowed(self) -> str:
        return f"a list of {self.noun}"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, list) or len(value) > self.most:
            yield Problem(path, show(value), self.allowed)
            return
        for index, item in enumerate(value):
            yield from self.kind.problems(item, (*path, index))

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "maxItems": self.most, "items": self.kind.json_schema()}


TEXT = Text(r"^[\s\S]+$", "a text", longest=4200)
DIGEST = Text(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 hex digits", longest=71)
HEX = Text(r"^[0-9a-f]{64}$", "64 hex digits", longest=64)
# See docs/names.md. `rm` and `prune` delete what stands here, so it must be llmctl's own name.
ALIAS = Text(r"^llmctl/[A-Za-z0-9_.-]{1,80}:[0-9a-f]{12}$", "llmctl/NAME:12 hex digits", longest=100)
COUNT = Whole(0, LARGEST_NUMBER)

LAYER = Section(
    {
        "media_type": Key(TEXT, "What the blob is, as its manifest says.", required=True),
        "digest": Key(DIGEST, "The sha256 of the blob.", required=True),
        "size_bytes": Key(COUNT, "The blob's size in bytes.", required=True),
    }
)

PIN = Section(
    {
        "name": Key(TEXT, "The name as asked, in the profile or by `llmctl pull`.", required=True),
        "served": Key(TEXT, "The name that the weights have of their own.", required=True),
        "source": Key(OneOf(SOURCES), "Where the weights came from.", required=True),
        "registry": Key(OrNull(TEXT), "The registry's host; null where there was none.", required=True),
        "manifest_digest": Key(
            DIGEST, "The sha256 of the manifest. Comparable between machines for source registry.", required=True
        ),
        "config": Key(OrNull(LAYER), "The manifest's config blob; null where it could not be read.", required=True),
        "layers": Key(Rows(LAYER, "layers", MOST_LAYERS), "Every other blob of the manifest.", required=True),
        "weights_digest": Key(DIGEST, "The sha256 of the GGUF blob: what answers.", required=True),
        "quantization": Key(TEXT, "What the GGUF file says of itself.", required=True),
        "file_type": Key(OrNull(COUNT), "The GGUF's `general.file_type`.", required=True),
        "parameters": Key(OrNull(COUNT), "How many weights the model has.", required=True),
        "alias": Key(ALIAS, "The private name that is served; see docs/names.md.", required=True),
        "engine": Key(TEXT, "The version of the engine that was there.", required=True),
        "pinned_at": Key(TEXT, "When, in UTC.", required=True),
        "from": Key(TEXT, "The address, the package or the file that it came from.", required=True),
    }
)

ENGINE = Section(
    {
        "version": Key(TEXT, "The engine release that `llmctl up` installed.", required=True),
        "release_sha256": Key(OrNull(HEX), "The sha256 of its archive; null where it was built here.", required=True),
    }
)

LOCK = Section(
    {
        "schema": Key(OneOf((SCHEMA,)), "The version of this format.", required=True),
        "engine": Key(ENGINE, "The engine that the profile runs on."),
        "models": Key(Rows(PIN, "pins", MOST_MODELS), "The pins, sorted by name, none twice.", required=True),
    }
)


def lock_schema_text() -> str:
    """profiles/lock.schema.json as it is committed."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "llmctl lock",
        "description": "The weights that one profile's names stand for. Generated from llmctl/core/lock_schema.py.",
        **LOCK.json_schema(),
    }
    return json.dumps(schema, indent=2) + "\n"
