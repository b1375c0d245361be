"""The environment of an owned server, and what a foreign one lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.profile import GpuSpec, ModelSpec, Profile, ServerSpec
from llmctl.core.serving import Lack, as_read, drop_in, equal, fingerprint, go_bool, lacks, server_environment, settings

PROFILE = Profile(name="p", models=(ModelSpec("m:1"),), server=ServerSpec(context=4096, parallel=2, kv_cache="q8_0"))


def test_every_setting_that_decides_memory_is_written() -> None:
    assert settings(PROFILE) == {
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NUM_PARALLEL": "2",
        "LLAMA_ARG_FIT": "off",
    }


def test_require_decides_what_happens_to_a_model_that_does_not_fit() -> None:
    partial = settings(replace(PROFILE, gpu=GpuSpec("partial", reserve_bytes=1000 * 1024**2 + 1)))
    assert partial["LLAMA_ARG_FIT_TARGET"] == "1001", "a part of a MiB is kept free too"
    assert "LLAMA_ARG_FIT" not in partial
    none = settings(replace(PROFILE, gpu=GpuSpec("none")))
    assert not [key for key in none if key.startswith("LLAMA_")]


def test_flash_attention_is_a_go_bool() -> None:
    server = replace(PROFILE.server, flash_attention="off")
    assert settings(replace(PROFILE, server=server))["OLLAMA_FLASH_ATTENTION"] == "0"


def test_a_leftover_variable_of_the_shell_decides_nothing() -> None:
    shell = {
        "OLLAMA_FLASH_ATTENTION": "1",
        "LLAMA_ARG_FIT": "on",
        "OLLAMA_KEEP_ALIVE": "5m",
        "PATH": "/bin",
        "LANG": "C",
    }
    environ = server_environment(PROFILE, shell, address="127.0.0.1:1", store="/s", home="/h", owner="/o")
    assert "OLLAMA_FLASH_ATTENTION" not in environ
    assert environ["LLAMA_ARG_FIT"] == "off"
    assert environ["OLLAMA_KEEP_ALIVE"] == "-1"
    assert environ["PATH"] == "/bin"


def test_the_fingerprint_changes_with_what_needs_a_restart_only() -> None:
    assert fingerprint(PROFILE) == fingerprint(replace(PROFILE, models=(ModelSpec("other:1"),)))
    assert fingerprint(PROFILE) != fingerprint(replace(PROFILE, server=replace(PROFILE.server, context=8192)))


def test_a_foreign_server_lacks_what_its_environment_shows() -> None:
    environ = {"OLLAMA_KEEP_ALIVE": "5m", "OLLAMA_NO_CLOUD": "yes", "OLLAMA_KV_CACHE_TYPE": "Q8_0", "PATH": "/bin"}
    found = {lack.setting: lack.found for lack in lacks(PROFILE, environ, [])}
    assert found == {
        "OLLAMA_CONTEXT_LENGTH": None,
        "OLLAMA_KEEP_ALIVE": "5m",
        "OLLAMA_MAX_LOADED_MODELS": None,
        "OLLAMA_NUM_PARALLEL": None,
        "LLAMA_ARG_FIT": None,
    }


@pytest.mark.parametrize(
    ("value", "read"),
    [("x", "x"), (' "x" ', "x"), ("'x'", "x"), ("\"'x'", "x"), ('" x "', " x "), ('x"y', 'x"y'), ('""', ""), ("", "")],
)
def test_blanks_and_then_quotes_are_trimmed_as_ollama_does(value: str, read: str) -> None:
    assert as_read(value) == read


@pytest.mark.parametrize(
    ("value", "on"),
    [
        *[(value, False) for value in ("0", "f", "False", "FALSE", '"0"', "'false'", "", '""')],
        *[(value, True) for value in ("1", "true", '"1"', "off", "no", "fALSE", "' '")],
    ],
)
def test_what_ollama_takes_for_true(value: str, on: bool) -> None:
    assert go_bool(value) is on


@pytest.mark.parametrize(
    ("setting", "wanted", "value", "same"),
    [
        ("OLLAMA_KV_CACHE_TYPE", "q8_0", '"q8_0"', True),
        ("OLLAMA_KV_CACHE_TYPE", "q8_0", "'q4_0'", False),
        ("OLLAMA_KV_CACHE_TYPE", "f16", '""', True),
        ("OLLAMA_KV_CACHE_TYPE", "f16", None, True),
        ("OLLAMA_NUM_PARALLEL", "1", "", True),
        ("OLLAMA_CONTEXT_LENGTH", "4096", ' "4096"', True),
        ("OLLAMA_KEEP_ALIVE", "-1", '"-1"', True),
        ("OLLAMA_KEEP_ALIVE", "-1", '"5m"', False),
        ("OLLAMA_NO_CLOUD", "1", '"1"', True),
        ("OLLAMA_NO_CLOUD", "1", '"0"', False),
        ("OLLAMA_FLASH_ATTENTION", "0", "'0'", True),
        ("OLLAMA_FLASH_ATTENTION", "0", "", False),
        # Read by llama.cpp and by the driver, which trim no quotes.
        ("LLAMA_ARG_FIT", "off", "off", True),
        ("LLAMA_ARG_FIT", "off", '"off"', False),
        ("CUDA_VISIBLE_DEVICES", "0", '"0"', False),
    ],
)
def test_whether_a_value_is_the_wanted_one(setting: str, wanted: str, value: str | None, same: bool) -> None:
    assert equal(setting, wanted, value) is same


def test_a_foreign_server_of_another_user_shows_only_its_runner() -> None:
    argv = ["llama-server", "-np", "1", "--flash-attn", "auto"]
    assert lacks(PROFILE, {}, argv) == (
        Lack("OLLAMA_NUM_PARALLEL", "2", "1"),
        Lack("OLLAMA_KV_CACHE_TYPE", "q8_0", "f16"),
    )
    assert lacks(PROFILE, {}, []) == ()


def test_the_drop_in_is_what_systemd_reads() -> None:
    assert drop_in([Lack("OLLAMA_KEEP_ALIVE", "-1", None)]) == '[Service]\nEnvironment="OLLAMA_KEEP_ALIVE=-1"'
