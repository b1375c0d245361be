"""Pins: which bytes a model name stands for. The lock file is a list of them.

Everything converts to and from plain dicts in a stable order, so that one change is one line of a diff.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from llmctl.errors import UsageError

SCHEMA = 1
WEIGHTS_MEDIA_TYPE = "application/vnd.ollama.image.model"
Source = Literal["registry", "starter", "file"]
SOURCES = ("registry", "starter", "file")


class LockError(UsageError):
    """A lock file that llmctl did not write so."""

    code = "bad_lock"


@dataclass(frozen=True)
class Layer:
    """One blob of a model. `digest` is `sha256:<64 hex>`."""

    media_type: str
    digest: str
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return {"media_type": self.media_type, "digest": self.digest, "size_bytes": self.size_bytes}

    @classmethod
    def from_dict(cls, value: object) -> Layer:
        entry = _mapping(value, "a layer")
        return cls(_text(entry, "media_type"), _digest(entry, "digest"), _count(entry, "size_bytes"))


@dataclass(frozen=True)
class Pin:
    """The weights that a name stands for.

    `name` is the name as asked, `served` the plain name that Ollama has it under (another one where the
    starter stands in). `manifest_digest` is comparable between machines only for `source: registry`: Ollama
    writes the manifest of a file or starter itself, so there `weights_digest` is what must match.
    """

    name: str
    served: str
    source: Source
    registry: str | None
    manifest_digest: str
    config: Layer | None
    layers: tuple[Layer, ...]
    weights_digest: str
    quantization: str
    file_type: int | None
    parameters: int | None
    alias: str
    engine: str
    pinned_at: str
    from_: str

    def to_dict(self) -> dict[str, Any]:
        """In the lock's order of keys."""
        return {
            "name": self.name,
            "served": self.served,
            "source": self.source,
            "registry": self.registry,
            "manifest_digest": self.manifest_digest,
            "config": self.config.to_dict() if self.config else None,
            "layers": [layer.to_dict() for layer in self.layers],
            "weights_digest": self.weights_digest,
            "quantization": self.quantization,
            "file_type": self.file_type,
            "parameters": self.parameters,
            "alias": self.alias,
            "engine": self.engine,
            "pinned_at": self.pinned_at,
            "from": self.from_,
        }

    @classmethod
    def from_dict(cls, value: object) -> Pin:
        entry = _mapping(value, "a pin")
        source = _text(entry, "source")
        if source not in SOURCES:
            raise LockError(f"`source` is {source!r}; it is one of {', '.join(SOURCES)}")
        layers = entry.get("layers")
        if not isinstance(layers, list):
            raise LockError("`layers` is not a list")
        config = entry.get("config")
        return cls(
            name=_text(entry, "name"),
            served=_text(entry, "served"),
            source=cast("Source", source),
            registry=_text(entry, "registry") if entry.get("registry") is not None else None,
            manifest_digest=_digest(entry, "manifest_digest"),
            config=Layer.from_dict(config) if config is not None else None,
            layers=tuple(Layer.from_dict(layer) for layer in layers),
            weights_digest=_digest(entry, "weights_digest"),
            quantization=_text(entry, "quantization"),
            file_type=_optional_count(entry, "file_type"),
            parameters=_optional_count(entry, "parameters"),
            alias=_text(entry, "alias"),
            engine=_text(entry, "engine"),
            pinned_at=_text(entry, "pinned_at"),
            from_=_text(entry, "from"),
        )

    @property
    def size_bytes(self) -> int:
        """All its blobs together."""
        return sum(layer.size_bytes for layer in (*self.layers, *([self.config] if self.config else [])))


@dataclass(frozen=True)
class EnginePin:
    """The engine release that a profile was proved with."""

    version: str
    release_sha256: str | None = None


@dataclass(frozen=True)
class Lock:
    """All pins of one profile, sorted by name."""

    models: tuple[Pin, ...] = ()
    engine: EnginePin | None = None

    def pin(self, name: str) -> Pin | None:
        return next((pin for pin in self.models if pin.name == name), None)

    def with_pin(self, pin: Pin) -> Lock:
        return replace(self, models=_sorted([*self.without(pin.name).models, pin]))

    def without(self, name: str) -> Lock:
        return replace(self, models=tuple(pin for pin in self.models if pin.name != name))

    def to_dict(self) -> dict[str, Any]:
        engine = {}
        if self.engine:
            engine = {"engine": {"version": self.engine.version, "release_sha256": self.engine.release_sha256}}
        return {"schema": SCHEMA, **engine, "models": [pin.to_dict() for pin in _sorted(self.models)]}

    @classmethod
    def from_dict(cls, value: object) -> Lock:
        """Raises LockError, which says what is wrong."""
        entry = _mapping(value, "the lock")
        if entry.get("schema") != SCHEMA:
            raise LockError(f"`schema` is {entry.get('schema')!r}; this llmctl reads {SCHEMA}")
        models = entry.get("models") or []
        if not isinstance(models, list):
            raise LockError("`models` is not a list")
        pins = [Pin.from_dict(model) for model in models]
        names = [pin.name for pin in pins]
        if len(set(names)) != len(names):
            raise LockError("a model stands in it twice")
        return cls(_sorted(pins), _engine(entry.get("engine")))


def _sorted(pins: Iterable[Pin]) -> tuple[Pin, ...]:
    return tuple(sorted(pins, key=lambda pin: pin.name))


def _engine(value: object) -> EnginePin | None:
    if value is None:
        return None
    entry = _mapping(value, "`engine`")
    sha256 = entry.get("release_sha256")
    return EnginePin(_text(entry, "version"), None if sha256 is None else _text(entry, "release_sha256"))


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise LockError(f"{what} is not a mapping")
    return value


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise LockError(f"`{key}` is {value!r}; it is a text")
    return value


def _digest(entry: Mapping[str, Any], key: str) -> str:
    value = _text(entry, key)
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
        raise LockError(f"`{key}` is {value!r}; it is sha256: and 64 hex digits")
    return value


def _count(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LockError(f"`{key}` is {value!r}; it is a whole number")
    return value


def _optional_count(entry: Mapping[str, Any], key: str) -> int | None:
    return None if entry.get(key) is None else _count(entry, key)
