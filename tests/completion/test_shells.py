"""Completion as a person has it: bash, zsh and fish themselves, Tab pressed on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.completion.shells import Shell

SHELLS = [
    pytest.param("bash", marks=pytest.mark.real("bash")),
    pytest.param("zsh", marks=pytest.mark.real("zsh")),
    pytest.param("fish", marks=pytest.mark.real("fish")),
]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, llmctl_bin: Path, known: list[str]) -> Iterator[Shell]:
    folder = tmp_path / "terminal"
    folder.mkdir()
    (folder / "notes.txt").write_text("a file to complete\n")
    started = Shell(request.param, folder, llmctl_bin)
    yield started
    started.close()


def test_tab_completes(shell: Shell) -> None:
    """One shell for all of these, since starting one costs more than a Tab."""
    assert shell.typed("llmctl stat\t") == ["status"]
    assert shell.typed("llmctl ask --max-t\t 5") == ["ask", "--max-tokens", "5"]
    assert shell.typed("llmctl up qui\t") == ["up", "quickstart"]
    assert shell.typed("llmctl engine ins\t") == ["engine", "install"]


def test_tab_completes_names_with_colons(shell: Shell) -> None:
    assert shell.typed("llmctl ask -m qw\t hello") == ["ask", "-m", "qwen3:8b-q4_K_M", "hello"]
    assert shell.typed("llmctl ask -m qwen3:\t hello") == ["ask", "-m", "qwen3:8b-q4_K_M", "hello"]
    assert shell.typed("llmctl ask -m gemma3:2\t") == ["ask", "-m", "gemma3:270m-q4_K_M"]
    assert shell.typed("llmctl ask --model=gemma3:1\t") == ["ask", "--model=gemma3:1b-it-q4_K_M"]
    assert shell.typed("llmctl ask --model=q\t") == ["ask", "--model=qwen3:8b-q4_K_M"]
    assert shell.typed("llmctl ask -m hf.co/someone/model:Q\t") == ["ask", "-m", "hf.co/someone/model:Q4_K_M"]
    assert shell.typed("llmctl ask -m gem\t2\t") == ["ask", "-m", "gemma3:270m-q4_K_M"]


def test_a_word_before_it_may_be_quoted(shell: Shell) -> None:
    assert shell.typed("llmctl ask 'two words: yes' -m qw\t") == ["ask", "two words: yes", "-m", "qwen3:8b-q4_K_M"]


def test_an_open_quote_is_completed(shell: Shell) -> None:
    assert shell.typed("llmctl ask -m 'gemma3:2\t") == ["ask", "-m", "gemma3:270m-q4_K_M"]


def test_files_where_a_file_is_wanted(shell: Shell) -> None:
    assert shell.typed("llmctl ask -f no\t") == ["ask", "-f", "notes.txt"]


def test_tab_lists_what_is_left(shell: Shell) -> None:
    """bash lists at the Tab after the one that completed nothing more."""
    shell.shown("llmctl ask -m gem\t\t\t", wanted="1b-it-q4_K_M")
