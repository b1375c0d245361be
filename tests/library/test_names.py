"""Model names: what is taken, what is refused and why, and the private names of pinned weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.model import ModelRef, alias_for, escape, looks_like_path, name_of_alias, unescape
from llmctl.errors import UsageError

DIGEST = "sha256:" + "0123456789ab" + "c" * 52


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("qwen3", "registry.ollama.ai/library/qwen3:latest", "qwen3:latest"),
        ("qwen3:32b-q4_K_M", "registry.ollama.ai/library/qwen3:32b-q4_K_M", "qwen3:32b-q4_K_M"),
        ("me/model:x", "registry.ollama.ai/me/model:x", "me/model:x"),
        ("registry.ollama.ai/library/qwen3", "registry.ollama.ai/library/qwen3:latest", "qwen3:latest"),
        ("hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M", "hf.co/u/r:Q4_K_M"),
        ("hf.co/u/R-GGUF:R.Q4_K_M.gguf", "hf.co/u/R-GGUF:R.Q4_K_M.gguf", "hf.co/u/R-GGUF:R.Q4_K_M.gguf"),
        ("127.0.0.1:5000/library/m", "127.0.0.1:5000/library/m:latest", "127.0.0.1:5000/library/m:latest"),
    ],
)
def test_reads_names_as_ollama_does(text: str, full: str, short: str) -> None:
    ref = ModelRef.parse(text)
    assert ref.full == full
    assert str(ref) == short
    assert ModelRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty model"),
        (" ", "model ' '"),
        ("qwen3 8b", "'qwen3 8b'"),
        ("qwen3:", "empty tag"),
        (":8b", "empty model"),
        ("a//b", "empty namespace"),
        ("a/", "empty model"),
        ("qwen3@sha256:" + "0" * 64, "pins the digest"),
        ("https://ollama.com/library/qwen3", "scheme"),
        ("a/b/c/d", "3 slashes"),
        ("/etc/passwd", "path"),
        ("../m", "path"),
        ("a/../b", "namespace '..'"),
        ("~/m.gguf", "path"),
        ("models/m.gguf", "path"),
        ("C:\\models\\m", "path"),
        (".hidden", "model '.hidden'"),
        ("-m", "model '-m'"),
        ("my.org/m", "namespace 'my.org'"),
        ("qwen3:8b\n", "tag '8b\\n'"),
        ("modèle", "'modèle'"),
        ("m" * 81, "model"),
        ("host:99999/n/m", "port 99999"),
        ("host:a/n/m", "host 'host:a'"),
    ],
)
def test_refuses_what_is_no_name_and_says_what_is(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModelRef.parse(text)
    assert why in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_path_is_told_from_a_name() -> None:
    assert all(map(looks_like_path, ["./x", "../x", "/x", "~/x", "x.gguf", "dir/X.GGUF"]))
    assert not any(map(looks_like_path, ["qwen3", "a/b", "hf.co/u/r:file.gguf"]))


def test_only_this_machine_is_spoken_to_without_tls() -> None:
    assert all(ModelRef.parse(f"{host}/n/m").loopback for host in ("127.0.0.1:5000", "localhost", "r.localhost"))
    assert not any(ModelRef.parse(f"{host}/n/m").loopback for host in ("127.0.0.1.evil.org", "hf.co", "localhost.org"))


def test_cloud_names_and_private_names_are_recognised() -> None:
    assert ModelRef.parse("gpt-oss:120b-cloud").cloud
    assert ModelRef.parse("gpt-oss:cloud").cloud
    assert not ModelRef.parse("cloud:8b").cloud
    assert ModelRef.parse(alias_for(ModelRef.parse("m"), DIGEST)).private
    assert not ModelRef.parse("hf.co/llmctl/m").private


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("qwen3:32b-q4_K_M", "qwen3_-32b-q4__K__M"),
        ("hf.co/u/r:Q4_K_M", "hf.co_.u_.r_-Q4__K__M"),
        ("127.0.0.1:5000/library/m:t", "127.0.0.1_-5000_.library_.m_-t"),
    ],
)
def test_the_written_escapes(name: str, part: str) -> None:
    assert escape(name) == part
    assert unescape(part) == name


def test_the_alias_carries_name_digest_and_context() -> None:
    ref = ModelRef.parse("qwen3:32b-q4_K_M")
    assert alias_for(ref, DIGEST) == "llmctl/qwen3_-32b-q4__K__M:0123456789ab"
    assert alias_for(ref, DIGEST, 8192) == "llmctl/qwen3_-32b-q4__K__M:0123456789ab-c8192"
    for context in (None, 8192):
        assert name_of_alias(alias_for(ref, DIGEST, context)) == "qwen3:32b-q4_K_M"


@pytest.mark.parametrize(
    "other", ["qwen3:8b", "llmctl/qwen3:latest", "me/qwen3_-8b:0123456789ab", "llmctl/a_b:0123456789ab"]
)
def test_other_names_are_no_aliases(other: str) -> None:
    assert name_of_alias(other) is None


PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", fullmatch=True)
NAMESPACE = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", fullmatch=True)
HOST = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}(:[1-9][0-9]{0,3})?", fullmatch=True)


@given(HOST, NAMESPACE, PART, PART)
def test_an_alias_is_a_name_for_ollama_and_gives_the_name_back_or_nothing(
    host: str, namespace: str, model: str, tag: str
) -> None:
    name = str(ModelRef(host, namespace, model, tag))
    alias = ModelRef.parse(alias_for(ModelRef.parse(name), DIGEST))
    assert alias.private
    assert name_of_alias(str(alias)) in {name, None}
    assert (name_of_alias(str(alias)) is None) == (
        len("".join({"_": "__", "/": "_.", ":": "_-"}.get(c, c) for c in name)) > 80
    )


def test_long_names_stay_apart_and_a_cut_escape_is_not_another_name() -> None:
    long = "a" * 66 + "_" * 10
    assert unescape(escape(long)) is None
    assert len(escape(long)) == 78
    assert escape("b" * 90) != escape("b" * 91)
    assert len(escape("b" * 90)) == 79
