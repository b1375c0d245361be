"""Where the server is: OLLAMA_HOST in the forms that ollama reads, and what wins."""

from __future__ import annotations

import pytest

from llmctl.core.address import choose_address, parse_host
from llmctl.errors import UsageError


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("example", "http://example:11434"),
        ("example:1234", "http://example:1234"),
        ("http://example", "http://example:80"),
        ("http://example:1234", "http://example:1234"),
        ("http://example:1234/path", "http://example:1234"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        # A bare number is a host name, as it is for ollama.
        ("11434", "http://11434:11434"),
        # A port that is none falls back to the default one.
        ("example:99999", "http://example:11434"),
        ("example:x", "http://example:11434"),
        ("http://example:x", "http://example:80"),
        (' "127.0.0.1:1234" ', "http://127.0.0.1:1234"),
        ("'example:1234'", "http://example:1234"),
    ],
)
def test_ollama_host_forms(value: str, url: str) -> None:
    assert parse_host(value, "OLLAMA_HOST").url == url


@pytest.mark.parametrize("value", ["https://example", "two words"])
def test_ollama_host_that_names_no_plain_server(value: str) -> None:
    with pytest.raises(UsageError, match="OLLAMA_HOST"):
        parse_host(value, "OLLAMA_HOST")


def test_which_setting_wins() -> None:
    both = {"LLMCTL_HOST": "example:3", "OLLAMA_HOST": "example:2"}
    profile = ("127.0.0.1", 1)
    assert choose_address(both, profile).origin == "LLMCTL_HOST"
    assert choose_address({"OLLAMA_HOST": "example:2"}, profile).origin == "profile"
    assert choose_address({"OLLAMA_HOST": "example:2"}, None).port == 2
    assert choose_address({"OLLAMA_HOST": ""}, None).url == "http://127.0.0.1:11434"
