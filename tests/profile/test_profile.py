"""A profile is valid as a whole, or every problem is said with file, line, key, what was found, what is allowed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.kinds import Section
from llmctl.core.model import ModelRef
from llmctl.core.profile import ModelSpec, Profile
from llmctl.core.schema import NAME, PROFILE, json_schema, json_schema_text, profile_reference
from llmctl.core.size import parse_size, write_size
from llmctl.core.validate import parse_profile
from llmctl.errors import ExitCode, InvalidProfile, LlmctlError, NotFound
from llmctl.system.shipped import data_folder, load_profile, load_shipped, shipped_names
from llmctl.system.yaml_file import dump_yaml, parse_yaml
from tests.profile.conftest import MINIMAL

Write = Callable[[str | bytes], Path]
SCHEMA = jsonschema.Draft7Validator(json_schema())
VALID: dict[str, Any] = {"schema": 1, "models": [{"name": "qwen3:8b-q4_K_M"}]}


def message_of(path: Path) -> str:
    with pytest.raises(InvalidProfile) as caught:
        load_profile(path)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.code == "invalid_profile"
    return caught.value.message


def test_a_small_profile_gets_every_default(write: Write) -> None:
    path = write(MINIMAL)
    expected = Profile("mine", (ModelSpec("qwen3:8b-q4_K_M"),), path=str(path))
    assert load_profile(path) == expected
    assert expected.server.address_given is False
    assert expected.reference == str(path)


def test_what_is_written_is_what_is_read(write: Write) -> None:
    profile = load_profile(
        write(
            """\
schema: 1
description: Für zwei Karten
private: true
engine: {kind: ollama, version: 0.34.0}
server: {host: "::1", port: 11500, context: 4096, parallel: 2, kv_cache: q8_0, flash_attention: on, max_loaded: 2}
models:
  - {name: hf.co/bartowski/Some-GGUF:Q8_0, quantization: Q8_0, context: 1024, fallback: starter}
  - {name: mine, source: weights/mine.gguf, resident: false}
gpu: {require: partial, reserve: 1.5GiB, devices: [1, 0]}
gateway: {port: 3001}
"""
        )
    )
    assert profile.private
    assert profile.engine.version == "0.34.0"
    assert profile.server.address_given
    assert profile.server.flash_attention == "on"
    assert profile.models[0].fallback == "starter"
    assert profile.models[1].source == str(Path(profile.path or "").parent / "weights/mine.gguf")
    assert [model.name for model in profile.resident] == ["hf.co/bartowski/Some-GGUF:Q8_0"]
    assert profile.gpu.reserve_bytes == 3 * 512 * 1024**2
    assert profile.gpu.devices == (1, 0)
    assert (profile.gateway.host, profile.gateway.port) == ("127.0.0.1", 3001)


def test_every_problem_is_listed_with_its_line(write: Write) -> None:
    path = write(
        """\
schema: 1
servr: {}
server:
  context: lots
  kv_cache: q8
models:
  - name: qwen3:8b-q4_K_M
    contxt: 4096
  - resident: true
    context: 1
"""
    )
    lines = message_of(path).splitlines()
    assert [line.split(": found ")[0] for line in lines] == [
        f"{path}:2: servr",
        f"{path}:4: server.context",
        f"{path}:5: server.kv_cache",
        f"{path}:8: models[0].contxt",
        f"{path}:9: models[1].name",
        f"{path}:10: models[1].context",
    ]
    assert lines[0].endswith("did you mean server?")
    assert lines[1].endswith("found 'lots', allowed a whole number from 256 to 16777216")
    assert lines[2].endswith("found 'q8', allowed f16, q8_0 or q4_0; did you mean q8_0?")
    assert lines[3].endswith("did you mean context?")


# Where, the value put there, and words of the answer. JSON Schema must refuse the same.
BAD: list[tuple[tuple[str | int, ...], object, str]] = [
    (("schema",), 2, "allowed 1"),
    (("schema",), True, "found true, allowed 1"),
    (("servr",), {}, "did you mean server?"),
    (("server",), None, "found nothing, allowed a mapping with host, port"),
    (("server",), [], "found an empty list"),
    (("server", "portt"), 1, "did you mean port?"),
    (("server", "context"), 0, "found 0, allowed a whole number from 256"),
    (("server", "context"), -1, "found -1"),
    (("server", "context"), "lots", "found 'lots'"),
    (("server", "context"), True, "found true"),
    (("server", "context"), 4096.5, "found 4096.5"),
    (("server", "context"), 10**30, "allowed a whole number"),
    (("server", "port"), 65536, "from 1 to 65535"),
    (("server", "parallel"), 0, "from 1 to 256"),
    (("server", "host"), "http://127.0.0.1", "without scheme and port"),
    (("server", "host"), "127.0.0.1:11434", "without scheme and port"),
    (("server", "host"), "", "found an empty text"),
    (("server", "kv_cache"), "Q8_0", "did you mean q8_0?"),
    (("server", "flash_attention"), True, "found true, allowed auto, on or off"),
    (("engine", "kind"), "olama", "did you mean ollama?"),
    (("engine", "version"), 0.34, "found 0.34, allowed a version with three numbers"),
    (("engine", "version"), "latest", "found 'latest'"),
    (("models",), [], "found an empty list, allowed a list of models, at least one"),
    (("models",), {"name": "x"}, "found a mapping, allowed a list"),
    (("models", 0), "qwen3", "allowed a mapping with name"),
    (("models", 0, "name"), "qwen3@sha256:" + "a" * 64, "the digest into the lock"),
    (("models", 0, "name"), "qwen 3", "without blanks"),
    (("models", 0, "name"), "/models/qwen3.gguf", "a file goes into source"),
    (("models", 0, "name"), "./qwen3", "a file goes into source"),
    (("models", 0, "name"), "qwen3.gguf", "a file goes into source"),
    (("models", 0, "name"), "gpt-oss:120b-cloud", "a local model's name"),
    (("models", 0, "name"), "llmctl/qwen3:0123456789ab", "a local model's name"),
    (("models", 0, "name"), "a/b/c/d", "a local model's name"),
    (("models", 0, "name"), "qwen3:", "a local model's name"),
    (("models", 0, "name"), None, "found nothing"),
    (("models", 0, "name"), "x" * 5000, "a local model's name"),
    (("models", 0, "source"), "registery", "starter, registry, or the path of a GGUF file"),
    (("models", 0, "source"), "a\x00/b", "the path of a GGUF file"),
    (("models", 0, "fallback"), "registry", "allowed starter"),
    (("models", 0, "resident"), "yes", "allowed true or false"),
    (("models", 0, "quantization"), "q4_K_M", "did you mean Q4_K_M?"),
    (("models", 0, "think"), True, "found an unknown key"),
    (("gpu", "require"), "ful", "did you mean full?"),
    (("gpu", "reserve"), 1024, "an amount with its unit"),
    (("gpu", "reserve"), "1024", "an amount with its unit"),
    (("gpu", "reserve"), "-1MiB", "an amount with its unit"),
    (("gpu", "devices"), "0", "all, or a list of GPU numbers"),
    (("gpu", "devices"), [], "at least one"),
    (("gpu", "devices"), [0, 0], "found 0 again"),
    (("gpu", "devices"), [-1], "from 0 to 63"),
    (("gpu", "devices"), [True], "found true"),
    (("description",), "two\nlines", "one line"),
    (("private",), 1, "found 1, allowed true or false"),
]


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    document: Any = copy.deepcopy(VALID)
    place = document
    for part in path[:-1]:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    place[path[-1]] = value
    whole: dict[str, Any] = document
    return whole


@pytest.mark.parametrize(("path", "value", "words"), BAD)
def test_a_bad_value_is_refused_here_and_by_the_json_schema(
    path: tuple[str | int, ...], value: object, words: str
) -> None:
    document = changed(path, value)
    with pytest.raises(InvalidProfile) as caught:
        parse_profile(document, {}, "p.yaml")
    assert words in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert not SCHEMA.is_valid(document)


@pytest.mark.parametrize("key", ["schema", "models"])
def test_a_missing_key_is_refused_here_and_by_the_json_schema(key: str) -> None:
    document = {name: value for name, value in VALID.items() if name != key}
    with pytest.raises(InvalidProfile, match=f"p.yaml:1: {key}: found nothing, allowed"):
        parse_profile(document, {}, "p.yaml")
    assert not SCHEMA.is_valid(document)


# What no single key can show, and so no JSON Schema either.
CONTRADICTIONS = [
    ("models: [{name: a}, {name: A:latest, resident: false}]", "models[1].name: found A:latest again"),
    ("models: [{name: a}, {name: b}]", "found 1 with 2 resident models, allowed 2 or more"),
    ("models: [{name: a, source: starter, fallback: starter}]", "allowed it only with source: registry"),
    ("models: [{name: a}]\nserver: {kv_cache: q4_0, flash_attention: off}", "server.flash_attention: found off"),
    ("models: [{name: a}]\ngateway: {port: 11434}", "found the server's port 11434"),
    ("models: [{name: host:99999/library/a}]", "models[0].name: found 'host:99999"),
]


@pytest.mark.parametrize(("text", "words"), CONTRADICTIONS)
def test_values_that_exclude_each_other(write: Write, text: str, words: str) -> None:
    assert words in message_of(write(f"schema: 1\n{text}\n"))


def test_a_private_server_has_a_port_of_its_own_and_so_no_clash(write: Write) -> None:
    assert load_profile(write(MINIMAL + "private: true\ngateway: {port: 11434}\n")).private


# Whole files that are no profile.
NOT_PROFILES: list[tuple[bytes, str]] = [
    (b"", "found nothing, allowed a mapping"),
    (b"# only a comment\n", "found nothing"),
    (b"just words", "found 'just words', allowed a mapping"),
    (b"- 1\n- 2\n", "found a list"),
    (bytes(range(256)) * 4, "not UTF-8"),
    (b"GGUF\x03\x00\x00\x00" + b"\x00" * 64, "a character that YAML does not allow"),
    ("schema: 1".encode("utf-16"), "not UTF-8"),
    (b"schema: !!python/object/apply:os.system [id]\n", "the tag"),
    (b"schema: &a 1\nmodels: *a\n", "the anchor"),
    (b"schema: 1\nschema: 1\n", "found 'schema' again, first on line 1"),
    (b"schema: 1\n---\nschema: 1\n", "second document"),
]


@pytest.mark.parametrize(("content", "words"), NOT_PROFILES)
def test_a_file_that_is_no_profile(write: Write, content: bytes, words: str) -> None:
    path = write(content)
    message = message_of(path)
    assert words in message
    assert message.startswith(f"{path}:")


def test_ten_megabytes_are_refused_unread(write: Write) -> None:
    with pytest.raises(LlmctlError, match="larger than 262,144 bytes"):
        load_profile(write(b"# filler\n" * 1_200_000))


def test_a_folder_a_pipe_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(LlmctlError, match="it is a folder"):
        load_profile(tmp_path)
    with pytest.raises(NotFound) as caught:
        load_profile(tmp_path / "missing.yaml")
    assert caught.value.exit_code == ExitCode.NOT_FOUND


def test_an_unreadable_file(write: Write, unprivileged: Callable[[], AbstractContextManager[None]]) -> None:
    path = write(MINIMAL)
    path.chmod(0)
    with unprivileged(), pytest.raises(LlmctlError, match="permission denied") as caught:
        load_profile(path)
    assert str(path) in caught.value.message


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write: Write) -> None:
    assert load_profile(write(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())).models


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["all", "full"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*PROFILE.keys, "name", "context", "host", "port", "devices", "reserve"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(DOCUMENTS)
def test_any_document_is_a_profile_or_invalid(document: object) -> None:
    with suppress(InvalidProfile):
        assert parse_profile(document, {}, "p.yaml").models


@given(DOCUMENTS, st.sampled_from(["server", "gpu", "engine", "gateway", "models", "private"]))
def test_the_json_schema_refuses_what_the_validator_refuses(part: object, key: str) -> None:
    document = {**VALID, key: part}
    problems = list(PROFILE.problems(document, ()))
    if any(isinstance(leaf, float) and leaf.is_integer() for leaf in leaves(document)):
        return  # JSON has one kind of number: there 1.0 is a whole one
    assert SCHEMA.is_valid(document) == (not problems)


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@given(st.text(max_size=60) | st.from_regex(NAME.pattern, fullmatch=True))
def test_a_name_that_the_pattern_takes_is_one_that_ollama_takes(name: str) -> None:
    if NAME.accepts(name) and ":0" not in name:
        ref = ModelRef.parse(name) if port_fits(name) else None
        assert ref is None or not (ref.cloud or ref.private)


def port_fits(name: str) -> bool:
    host = name.partition("/")[0]
    return "/" not in name or ":" not in host or int(host.partition(":")[2]) < 65536


def test_every_default_is_valid() -> None:
    def with_defaults(section: Section) -> dict[str, object]:
        known = {name: key for name, key in section.keys.items() if not key.required}
        return {
            name: with_defaults(key.kind) if isinstance(key.kind, Section) else key.default
            for name, key in known.items()
            if isinstance(key.kind, Section) or key.default is not None
        }

    document = {**VALID, **with_defaults(PROFILE)}
    profile = parse_profile(document, {}, "/x/mine.yaml")
    assert profile.server.address_given
    expected = parse_profile(VALID, {}, "/x/mine.yaml")
    assert (profile.gpu, profile.gateway, profile.engine) == (expected.gpu, expected.gateway, expected.engine)
    assert SCHEMA.is_valid(document)


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_profile_is_valid_for_both(name: str) -> None:
    path = data_folder("profiles") / f"{name}.yaml"
    profile = load_shipped(name)
    assert (profile.name, profile.shipped, profile.reference) == (name, True, name)
    assert profile.description
    SCHEMA.validate(parse_yaml(path.read_bytes(), str(path)).data)
    assert all("q4_K_M" in model.name for model in profile.models)


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_profile_is_documented_and_names_its_schema(name: str) -> None:
    folder = data_folder("profiles")
    lines = (folder / f"{name}.yaml").read_text().splitlines()
    modeline = "# yaml-language-server: $schema="
    assert lines[0].startswith(modeline)
    assert (folder / lines[0].removeprefix(modeline)).is_file()
    assert lines[2].startswith(f"# {name}: ")


def test_what_the_shipped_profiles_promise() -> None:
    quickstart = load_shipped("quickstart")
    assert quickstart.private
    assert quickstart.gpu.require == "none"
    assert quickstart.models[0].fallback == "starter"
    assert load_shipped("24gb-llama3.3-70b-offload").gpu.require == "partial"
    full = {"8gb", "12gb", "16gb", "24gb", "2x24gb-llama3.3-70b", "48gb"}
    assert {name for name in shipped_names() if load_shipped(name).gpu.require == "full"} == full


def test_the_committed_schema_is_the_generated_one() -> None:
    assert (data_folder("profiles") / "profile.schema.json").read_text() == json_schema_text()
    jsonschema.Draft7Validator.check_schema(json.loads(json_schema_text()))


def test_the_reference_names_every_key() -> None:
    text = profile_reference()
    for name in [*PROFILE.keys, "kv_cache", "fallback", "reserve", "max_loaded"]:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1024MiB", 1024**3), ("24GiB", 24 * 1024**3), ("1.5GiB", 1536 * 1024**2), ("0KiB", 0), ("1TiB", 1024**4)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes
    assert parse_size(write_size(size_bytes)) == size_bytes


@pytest.mark.parametrize("text", ["", "24", "24GB", "24 GiB", "GiB", "-1GiB", "1e3GiB", ".5GiB", "٣GiB", "1GiB\n"])
def test_no_sizes(text: str) -> None:
    assert parse_size(text) is None


@given(st.integers(0, 10**9 - 1))
def test_a_size_is_written_as_it_is_read(kibibytes: int) -> None:
    assert parse_size(write_size(kibibytes * 1024)) == kibibytes * 1024


def test_a_profile_survives_a_dump(write: Write) -> None:
    assert load_profile(write(dump_yaml(VALID))).models == (ModelSpec("qwen3:8b-q4_K_M"),)
