"""Pins: which bytes a model name stands for. The lock file is a list of them.

Everything converts to and from plain dicts in a stable order, so that one change is one line of a diff.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmctl.core.kinds import UNKNOWN_KEY, dotted, show
from llmctl.core.lock_schema import LOCK, SCHEMA
from llmctl.core.model import ModelRef
from llmctl.errors import Refused, UsageError

WEIGHTS_MEDIA_TYPE = "application/vnd.ollama.image.model"
Source = Literal["registry", "starter", "file"]
NEWER = "if a newer llmctl wrote it, upgrade this one: llmctl --version"


def name_key(name: str) -> str:
    """What two spellings of one model name have in common: every part, blind to case, as Ollama compares them."""
    try:
        return ModelRef.parse(name).full.lower()
    except UsageError:
        # A lock that was edited by hand: such a name is itself and nothing else.
        return name


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
    def from_dict(cls, entry: Mapping[str, Any]) -> Layer:
        return cls(entry["media_type"], entry["digest"], entry["size_bytes"])


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
    def from_dict(cls, entry: Mapping[str, Any]) -> Pin:
        """The other way, of an entry that has been checked."""
        values = {key: value for key, value in entry.items() if key not in {"from", "config", "layers"}}
        config = entry["config"]
        return cls(
            **values,
            config=None if config is None else Layer.from_dict(config),
            layers=tuple(Layer.from_dict(layer) for layer in entry["layers"]),
            from_=entry["from"],
        )

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """Every blob that it reaches, the config included."""
        return (*self.layers, *([self.config] if self.config else []))

    @property
    def size_bytes(self) -> int:
        """All its blobs together."""
        return sum(layer.size_bytes for layer in self.blobs)


@dataclass(frozen=True)
class EnginePin:
    """The engine release that a profile was proved with."""

    version: str
    release_sha256: str | None = None


@dataclass(frozen=True)
class Lock:
    """All pins of one profile, sorted by name. A name is found, replaced and removed in any of its spellings."""

    models: tuple[Pin, ...] = ()
    engine: EnginePin | None = None

    def pin(self, name: str) -> Pin | None:
        """The pin of this name."""
        key = name_key(name)
        return next((pin for pin in self.models if name_key(pin.name) == key), None)

    def meant(self, text: str) -> Pin | None:
        """The pin that a person means by `text`: its name, else its alias, else the name that its weights go by."""
        key = name_key(text)
        known = [(pin, (pin.name, pin.alias, pin.served)) for pin in self.models]
        return next((pin for each in range(3) for pin, names in known if name_key(names[each]) == key), None)

    def with_pin(self, pin: Pin) -> Lock:
        return replace(self, models=_sorted([*self.without(pin.name).models, pin]))

    def repinned(self, before: Pin | None, pin: Pin) -> Lock:
        """With `pin` in place of `before`. Refused where another llmctl has pinned other weights since.

        Where it has pinned the same, its pin stays.
        """
        now = self.pin(pin.name)
        if now == before:
            return self.with_pin(pin)
        if now is None or (now.manifest_digest, now.weights_digest) != (pin.manifest_digest, pin.weights_digest):
            was = f"pinned to {now.manifest_digest[7:19]}" if now else "unpinned"
            message = f"{pin.name} was {was} by another llmctl meanwhile"
            raise Refused(message, "the same command again", code="drift", document=now and _drift(now, pin))
        return self

    def without(self, name: str) -> Lock:
        key = name_key(name)
        return replace(self, models=tuple(pin for pin in self.models if name_key(pin.name) != key))

    def to_dict(self) -> dict[str, Any]:
        engine = {}
        if self.engine:
            engine = {"engine": {"version": self.engine.version, "release_sha256": self.engine.release_sha256}}
        return {"schema": SCHEMA, **engine, "models": [pin.to_dict() for pin in _sorted(self.models)]}

    @classmethod
    def from_dict(cls, value: object) -> Lock:
        """Raises LockError, which says what is wrong.

        A key that this llmctl does not know is refused too: the next write would lose it.
        """
        document = value if isinstance(value, Mapping) else {}
        if document.get("schema", SCHEMA) != SCHEMA:
            raise LockError(f"schema is {show(document['schema'])}; this llmctl reads {SCHEMA}", NEWER)
        for problem in LOCK.problems(value, ()):
            key = f"{dotted(problem.path)}: " if problem.path else ""
            hint = NEWER if problem.found == UNKNOWN_KEY else None
            raise LockError(f"{key}found {problem.found}, allowed {problem.allowed}", hint)
        pins = [Pin.from_dict(model) for model in document["models"]]
        seen: dict[str, str] = {}
        for pin in pins:
            key = name_key(pin.name)
            if key in seen:
                raise LockError(f"a model stands in it twice: {' and '.join(dict.fromkeys([seen[key], pin.name]))}")
            seen[key] = pin.name
        engine = document.get("engine")
        return cls(_sorted(pins), None if engine is None else EnginePin(**engine))


def _drift(pinned: Pin, found: Pin) -> object:
    from llmctl.core.changes import changes
    from llmctl.core.drift import Drift

    parts = changes(pinned.layers, pinned.config, found.layers, found.config)
    return Drift(pinned.name, pinned.manifest_digest, found.manifest_digest, parts)


def _sorted(pins: Iterable[Pin]) -> tuple[Pin, ...]:
    return tuple(sorted(pins, key=lambda pin: pin.name))
