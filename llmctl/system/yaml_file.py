"""YAML as data: no tags, no anchors, no key twice, each value with its line. PyYAML is used only here.

Scalars are read as in YAML 1.2: `yes`, `on` and `1:30` are text. A number is only what PyYAML's dumper, which
follows YAML 1.1, would quote as text (so not 1e3 and not 089): what `dump_yaml` writes reads back the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llmctl.errors import InvalidProfile, LlmctlError

Path = tuple[str | int, ...]

DEEPEST = 24
WIDEST_LINE = 1000
LONGEST_NUMBER = 400

# libyaml where the wheel brings it: 10 times faster on the one file that every command reads.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = {"", "~", "null", "Null", "NULL"}
_SWITCH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """A parsed file. `lines` maps the path of each key and list item to its line, counted from 1."""

    data: Any
    lines: Mapping[Path, int]


class _Wrong(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_yaml(content: bytes, where: str, error: type[LlmctlError] = InvalidProfile) -> Document:
    """The one document in `content`. An empty one has the data None. Raises `error` as `WHERE:LINE: ...`."""
    try:
        text = content.decode("utf-8-sig")
        return _document(_LOADER(text))
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{where}:{line}: found bytes that are not UTF-8, allowed YAML text in UTF-8") from None
    except _Wrong as problem:
        raise error(f"{where}:{problem.line}: {problem}") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise error(f"{where}:{line}: found no valid YAML: {problem.problem or problem.context}") from None
    except yaml.YAMLError as problem:
        position = getattr(problem, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        raise error(f"{where}:{line}: found a character that YAML does not allow") from None


def dump_yaml(data: object) -> str:
    """`data` (dicts, lists, text, numbers, None) as YAML in the order given."""
    # Escaped ASCII: PyYAML writes U+0085 as it is, and that reads back as a blank.
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=False, width=WIDEST_LINE)
    return text


def _document(loader: Any) -> Document:
    try:
        lines: dict[Path, int] = {}
        loader.get_event()  # the start of the stream
        data = None
        if not loader.check_event(yaml.StreamEndEvent):
            loader.get_event()  # the start of the document
            data = _node(loader, (), lines)
            loader.get_event()
        if not loader.check_event(yaml.StreamEndEvent):
            raise _Wrong(_line(loader.peek_event()), "found a second document, allowed one in a file")
        return Document(data, lines)
    finally:
        loader.dispose()


def _node(loader: Any, path: Path, lines: dict[Path, int]) -> Any:
    event = loader.get_event()
    lines.setdefault(path, _line(event))
    _refuse_specials(event, path)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        return _sequence(loader, path, lines)
    return _mapping(loader, path, lines)


def _sequence(loader: Any, path: Path, lines: dict[Path, int]) -> list[Any]:
    found: list[Any] = []
    while not loader.check_event(yaml.SequenceEndEvent):
        found.append(_node(loader, (*path, len(found)), lines))
    loader.get_event()
    return found


def _mapping(loader: Any, path: Path, lines: dict[Path, int]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    while not loader.check_event(yaml.MappingEndEvent):
        event = loader.get_event()
        _refuse_specials(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            raise _Wrong(_line(event), "found a list or mapping as a key, allowed a word")
        # A key is what is written: `on:` and `1:` name themselves.
        key, line = str(event.value), _line(event)
        place = (*path, key)
        if key in found:
            raise _Wrong(line, f"found {key[:60]!r} again, first on line {lines[place]}; allowed once")
        lines[place] = line
        found[key] = _node(loader, place, lines)
    loader.get_event()
    return found


def _refuse_specials(event: Any, path: Path) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise _Wrong(_line(event), f"found the alias *{str(event.anchor)[:60]}, allowed values only")
    if event.anchor is not None:
        raise _Wrong(_line(event), f"found the anchor &{event.anchor[:60]}, allowed values only")
    if event.tag is not None:
        raise _Wrong(_line(event), f"found the tag {event.tag[:60]!r}, allowed values without tags")
    if len(path) > DEEPEST:
        raise _Wrong(_line(event), f"found more than {DEEPEST} levels, allowed a profile's few")


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _scalar(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _SWITCH:
        return _SWITCH[text]
    if len(text) > LONGEST_NUMBER:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text
