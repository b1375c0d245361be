"""The kinds of value that a profile may hold.

Each kind says in one place what it accepts: to the validator (`problems`), to an editor (`json_schema`) and
to a reader (`allowed`). A pattern must mean the same in Python and in JavaScript.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llmctl.core.size import PATTERN, parse_size

KeyPath = tuple[str | int, ...]

SHOWN_CHARACTERS = 60
UNKNOWN_KEY = "an unknown key"


@dataclass(frozen=True)
class Problem:
    """Something wrong at one key: what was found there, and what is allowed."""

    path: KeyPath
    found: str
    allowed: str


class Kind(Protocol):
    """What a value may be."""

    @property
    def allowed(self) -> str: ...

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]: ...

    def json_schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Key:
    """One key of a section. A key that is not required has a default; None means unset."""

    kind: Kind
    description: str
    default: object = None
    required: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of a few words or numbers."""

    values: tuple[str | int, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(map(str, self.values[:-1])) + " or " * (len(self.values) > 1) + str(self.values[-1])

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        # `True == 1` in Python, but not in a profile.
        if not any(type(value) is type(each) and value == each for each in self.values):
            yield Problem(path, show(value), f"{self.allowed}{nearest(value, self.values)}")

    def json_schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class Text:
    """A string. `pattern` is anchored at both ends."""

    pattern: str
    allowed: str
    longest: int = 300

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, str) or len(value) > self.longest or not self.accepts(value):
            yield Problem(path, show(value), self.allowed)

    def accepts(self, value: str) -> bool:
        # `$` alone would let a trailing newline pass.
        return re.fullmatch(self.pattern, value) is not None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern, "maxLength": self.longest}


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds, both included."""

    minimum: int
    maximum: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        number = isinstance(value, int) and not isinstance(value, bool)
        if not number or not self.minimum <= value <= self.maximum:  # type: ignore[operator]
            yield Problem(path, show(value), self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Switch:
    """true or false."""

    allowed: str = "true or false"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, bool):
            yield Problem(path, show(value), self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Size:
    """An amount of memory with its unit."""

    allowed: str = "an amount with its unit, such as 1024MiB or 1.5GiB"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, str) or parse_size(value) is None:
            yield Problem(path, show(value), self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": PATTERN}


@dataclass(frozen=True)
class Items:
    """A list with at least one item; with `distinct`, no item twice."""

    kind: Kind
    noun: str
    distinct: bool = False

    @property
    def allowed(self) -> str:
        return f"a list of {self.noun}, at least one"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)) or not value:
            yield Problem(path, show(value), self.allowed)
            return
        for index, item in enumerate(value):
            if self.distinct and item in value[:index]:
                yield Problem((*path, index), f"{show(item)} again", f"each of the {self.noun} once")
            yield from self.kind.problems(item, (*path, index))

    def json_schema(self) -> dict[str, Any]:
        unique = {"uniqueItems": True} if self.distinct else {}
        return {"type": "array", "minItems": 1, "items": self.kind.json_schema(), **unique}


@dataclass(frozen=True)
class Either:
    """A word that stands for everything, or a list."""

    word: OneOf
    items: Items

    @property
    def allowed(self) -> str:
        return f"{self.word.allowed}, or {self.items.allowed}"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if isinstance(value, (list, tuple)):
            yield from self.items.problems(value, path)
        elif any(self.word.problems(value, path)):
            yield Problem(path, show(value), self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [self.word.json_schema(), self.items.json_schema()]}


@dataclass(frozen=True)
class Section:
    """A mapping with known keys and no others."""

    keys: Mapping[str, Key]

    @property
    def allowed(self) -> str:
        return f"a mapping with {', '.join(self.keys)}"

    def problems(self, value: object, path: KeyPath) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem(path, show(value), self.allowed)
            return
        for name, item in value.items():
            key = self.keys.get(name) if isinstance(name, str) else None
            if key is None:
                place = name if isinstance(name, (str, int)) else str(type(name).__name__)
                yield Problem((*path, place), UNKNOWN_KEY, ", ".join(self.keys) + nearest(name, self.keys))
            else:
                yield from key.kind.problems(item, (*path, name))
        for name, key in self.keys.items():
            if key.required and name not in value:
                yield Problem((*path, name), "nothing", key.kind.allowed)

    def json_schema(self) -> dict[str, Any]:
        required = [name for name, key in self.keys.items() if key.required]
        properties = {name: _described(key) for name, key in self.keys.items()}
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        }
        return {**schema, "required": required} if required else schema


def _described(key: Key) -> dict[str, Any]:
    default = {} if key.default is None else {"default": key.default}
    return {**key.kind.json_schema(), "description": key.description, **default}


def dotted(path: KeyPath) -> str:
    """A key's path as people write it: models[0].name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part)
            text += ("." if text else "") + (part if plain else repr(part[:60]))
    return text


def show(value: object) -> str:
    """A value in an error message: short, on one line, its kind recognisable."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        cut = value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "..."
        return repr(cut) if cut else "an empty text"
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 200):
        return repr(value)
    return "a number too large to show" if isinstance(value, int) else f"a {type(value).__name__}"


def nearest(found: object, known: Mapping[str, Any] | tuple[str | int, ...]) -> str:
    """`; did you mean X?` for the known word that is most like `found`, else nothing."""
    import difflib  # only for an error: its own imports cost as much as all of this module

    words = [word for word in known if isinstance(word, str)]
    match = difflib.get_close_matches(str(found)[:SHOWN_CHARACTERS], words, n=1, cutoff=0.5)
    return f"; did you mean {match[0]}?" if match else ""
