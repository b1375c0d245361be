"""Versions, and which engine is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.engine import (
    Backend,
    Engine,
    Origin,
    Rule,
    best,
    is_new_enough,
    objection,
    parse_sha256sums,
    release_asset,
    version_in,
)


def engine(version: str, origin: Origin = "registry", backend: Backend = "cpu", sha256: str | None = None) -> Engine:
    prefix = Path(f"/engines/{version}-{backend}")
    return Engine("ollama", version, prefix, prefix / "ollama", prefix / "runner", origin, backend, "test", sha256)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Warning: could not connect to a running Ollama instance\nWarning: client version is 0.34.0", "0.34.0"),
        ("ollama version is 0.33.0", "0.33.0"),
        ("ollama version is 0.33.0\nWarning: client version is 0.34.0", "0.34.0"),
        ("ollama version is 0.34.0-rc1", "0.34.0-rc1"),
        ("command not found", None),
        ("version is unknown", None),
    ],
)
def test_reads_the_programs_own_version(output: str, version: str | None) -> None:
    assert version_in(output) == version


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        ("0.30.0", True),
        ("0.30.0-rc2", False),
        ("0.30.0-1", True),
        ("0.29.9", False),
        ("0.9.0", False),
        ("1.0.0", True),
        ("0.0.0", False),
    ],
)
def test_needs_ollama_0_30(version: str, enough: bool) -> None:
    assert is_new_enough(version) is enough


@pytest.mark.parametrize(
    ("candidate", "rule", "words"),
    [
        (engine("0.34.0"), Rule(), None),
        (engine("0.34.0"), Rule("0.33.0"), "0.33.0 is asked for"),
        (engine("0.24.0"), Rule(), "older than 0.30"),
        (engine("0.34.0", "release", sha256="a"), Rule(release_sha256="b"), "another archive"),
        (engine("0.34.0", "release", sha256="a"), Rule(release_sha256="a"), None),
        (engine("0.34.0", "registry"), Rule(release_sha256="a"), None),
    ],
)
def test_objects_to_an_engine_that_the_rule_excludes(candidate: Engine, rule: Rule, words: str | None) -> None:
    found = objection(candidate, rule)
    assert found is None if words is None else found and words in found


@pytest.mark.parametrize(
    ("engines", "rule", "taken"),
    [
        ([engine("0.33.0"), engine("0.34.0")], Rule(), "0.34.0-cpu"),
        ([engine("0.9.0"), engine("0.31.0")], Rule(), "0.31.0-cpu"),
        ([engine("0.33.0"), engine("0.34.0")], Rule("0.33.0"), "0.33.0-cpu"),
        ([engine("0.34.0"), engine("0.34.0", "release", "unknown")], Rule(), "0.34.0-unknown"),
        ([engine("0.34.0"), engine("0.33.0", backend="cuda")], Rule(cpu_only_allowed=False), "0.33.0-cuda"),
        ([engine("0.34.0"), engine("0.33.0", backend="cuda")], Rule(cpu_only_allowed=True), "0.34.0-cpu"),
        ([engine("0.34.0")], Rule(cpu_only_allowed=False), "0.34.0-cpu"),
        ([engine("0.24.0")], Rule(), None),
    ],
)
def test_takes_the_best_private_engine(engines: list[Engine], rule: Rule, taken: str | None) -> None:
    chosen = best(engines, rule)
    assert (chosen.prefix.name if chosen else None) == taken


def test_reads_the_hash_list_of_a_release() -> None:
    text = f"{'A' * 64}  ./ollama-linux-amd64.tar.zst\n<html>\n{'b' * 64} *plain.tgz\n{'c' * 63}  short\n"
    assert parse_sha256sums(text) == {"ollama-linux-amd64.tar.zst": "a" * 64, "plain.tgz": "b" * 64}


def test_knows_the_archive_of_a_machine() -> None:
    assert release_asset("x86_64") == "ollama-linux-amd64.tar.zst"
    assert release_asset("aarch64") == "ollama-linux-arm64.tar.zst"
    assert release_asset("riscv64") is None
