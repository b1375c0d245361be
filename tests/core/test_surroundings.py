"""Which differences between a shell and the unit are told."""

from __future__ import annotations

import pytest

from llmctl.core.surroundings import Difference, Surroundings, Variables, differences

UNIT = Surroundings("llmctl", ("llmctl", "video"), "/usr/bin", "/opt/ollama", ("/dev/nvidia0", "/dev/nvidiactl"), None)
SETTINGS = {"OLLAMA_HOST": "127.0.0.1:11434", "OLLAMA_MODELS": "/var/lib/llmctl/models", "OLLAMA_KEEP_ALIVE": "-1"}


def test_what_is_the_same_or_unknown_is_no_difference() -> None:
    its = Variables(SETTINGS, complete=True)
    assert differences(UNIT, UNIT, its, SETTINGS | {"HOME": "/home/ann"}) == []
    unknown = Surroundings(None, None, None, None, None, None)
    assert differences(unknown, UNIT, its, {}) == differences(UNIT, unknown, its, {}) == []


def test_who_differs_is_data_and_what_misleads_matters() -> None:
    shell = Surroundings("ann", ("ann",), "/home/ann/bin", "/home/ann/bin/ollama", ("/dev/nvidiactl", "/dev/kfd"), None)
    assert differences(UNIT, shell, Variables(SETTINGS, complete=True), {}) == [
        Difference("user", "llmctl", "ann", matters=False),
        Difference("groups", "llmctl, video", "ann", matters=False),
        Difference("PATH", "/usr/bin", "/home/ann/bin", matters=False),
        Difference("ollama", "/opt/ollama", "/home/ann/bin/ollama", matters=True),
        Difference("nodes", "/dev/nvidia0", "/dev/kfd", matters=True),
    ]


def test_beside_a_card_of_nvidias_files_for_screens_do_not_matter() -> None:
    def nodes(*given: str) -> Surroundings:
        return Surroundings(None, None, None, None, given, None)

    its = Variables({}, complete=True)
    (found,) = differences(nodes("/dev/nvidia0"), nodes("/dev/nvidia0", "/dev/dri/renderD128"), its, {})
    assert found == Difference("nodes", None, "/dev/dri/renderD128", matters=False)
    (found,) = differences(nodes("/dev/kfd"), nodes("/dev/kfd", "/dev/dri/renderD128"), its, {})
    assert found.matters


@pytest.mark.parametrize(
    ("name", "value", "complete", "found"),
    [
        ("OLLAMA_HOST", "http://localhost:11434/", True, None),
        ("OLLAMA_HOST", "0.0.0.0", True, None),
        ("OLLAMA_HOST", "127.0.0.1:11435", True, "127.0.0.1:11434"),
        ("OLLAMA_HOST", "127.0.0.1:11435", False, "127.0.0.1:11434"),
        ("OLLAMA_HOST", "https://elsewhere", True, "127.0.0.1:11434"),
        ("OLLAMA_MODELS", "/var/lib/llmctl/models/", True, None),
        ("OLLAMA_MODELS", "/home/ann/.ollama/models", True, "/var/lib/llmctl/models"),
        ("OLLAMA_MODELS", '"/var/lib/llmctl/models"', True, None),
        ("OLLAMA_KEEP_ALIVE", "5m", True, "-1"),
        ("OLLAMA_KEEP_ALIVE", "'-1'", True, None),
        ("OLLAMA_DEBUG", "1", True, ""),
        ("OLLAMA_DEBUG", "1", False, None),
        ("OLLAMA_EDITOR", "vi", True, None),
        ("OLLAMA_API_KEY", "geheim", True, None),
        ("LLMCTL_SCOPE", "user", True, None),
    ],
)
def test_settings_of_ollama_in_a_shell_that_the_server_does_not_have(
    name: str, value: str, complete: bool, found: str | None
) -> None:
    """`found` is what the unit has, "" for nothing; None where there is nothing to tell."""
    told = differences(UNIT, UNIT, Variables(SETTINGS, complete), {name: value})
    assert told == ([] if found is None else [Difference(name, found or None, value, matters=True)])
