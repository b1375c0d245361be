"""YAML is read as plain data, with lines; whatever is more than that is an error with a line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import InvalidProfile, UsageError
from llmctl.system import yaml_file
from llmctl.system.yaml_file import dump_yaml, parse_yaml


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers: libyaml is not in every build of it."""
    monkeypatch.setattr(yaml_file, "_LOADER", getattr(yaml, request.param))


def read(text: str) -> Any:
    return parse_yaml(text.encode(), "f").data


pytestmark = pytest.mark.usefixtures("loader")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("8192", 8192),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1.5", 1.5),
        ("12e4567", "12e4567"),
        ("2024-01-01", "2024-01-01"),
        ("'8192'", "8192"),
        ("<<", "<<"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    lines = parse_yaml(b"a: 1\nb:\n  - c: 2\n    d: 3\n\n  - e\n", "f").lines
    assert lines[("a",)] == 1
    assert lines[("b",)] == 2
    assert lines[("b", 0, "d")] == 4
    assert lines[("b", 1)] == 6


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [id]", 2, "tag"),
        ("a: !x 1", 1, "tag"),
        ("a: &x 1\nb: 2", 1, "anchor &x"),
        ("a: 1\nb: *x", 2, "alias *x"),
        ("a: 1\nb: 2\na: 3", 3, "'a' again, first on line 1"),
        ("{a: 1, a: 2}", 1, "'a' again"),
        ("? [a, b]\n: 1", 1, "as a key"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: [1\nb: 2", 2, "no valid YAML"),
        ("a:\n\t- b", 2, "no valid YAML"),
        ("a: 'open", 1, "no valid YAML"),
        ("a: \x07", 1, "character"),
        ("%YAML 9.9\n---\na", 1, "no valid YAML"),
    ],
)
def test_what_is_more_than_data_is_an_error_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidProfile, match=r"^f:\d+: ") as caught:
        read(text)
    assert caught.value.message.startswith(f"f:{line}: ")
    assert words in caught.value.message


def test_a_bomb_of_aliases_ends_at_the_first_anchor() -> None:
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
    with pytest.raises(InvalidProfile, match="anchor"):
        read(f"l0: &l0 lol\n{layers}")


@pytest.mark.parametrize("deep", ["[" * 100_000, "{a: " * 60_000, "- " * 100_000])
def test_depth_is_bounded(deep: str) -> None:
    with pytest.raises(InvalidProfile, match="levels"):
        read(deep)


def test_bytes_that_are_not_utf8_have_their_line() -> None:
    with pytest.raises(InvalidProfile, match="f:2: found bytes that are not UTF-8"):
        parse_yaml(b"a: 1\nb: \xff\xfe", "f")


def test_another_file_has_another_error() -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(b"a: [", "x.lock", UsageError)
    assert type(caught.value) is UsageError


@given(st.binary(max_size=300))
def test_no_bytes_get_past_as_another_exception(content: bytes) -> None:
    with suppress(InvalidProfile):
        assert parse_yaml(content, "f").lines is not None


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.from_regex(
    r"[0-9a-f.e+-]{1,12}", fullmatch=True
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(DATA)
def test_what_is_dumped_reads_back_the_same(data: object) -> None:
    found = read(dump_yaml(data))
    assert found == data
    assert repr(found) == repr(data)


def test_a_dump_keeps_the_order_given() -> None:
    assert dump_yaml({"b": 1, "a": ["x", {"d": None, "c": True}]}) == "b: 1\na:\n- x\n- d: null\n  c: true\n"
