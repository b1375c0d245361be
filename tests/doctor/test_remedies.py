"""What is taken for a command that can be run, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.remedies import ELSEWHERE, HELP, SHAPES, installed, parses


@pytest.mark.parametrize(
    "command",
    [
        "llmctl up --profile 'my profile.yaml'",
        'sudo env LLMCTL_STATE_DIR=/x "$(command -v llmctl)" repair --store /m a',
        "OLLAMA_HOST=127.0.0.1:11434 ollama serve",
        "export OLLAMA_MODELS='/my models'",
        "unset OLLAMA_HOST",
        "kill 7",
        "seq 1 500 | llmctl ask -m m --stats 'Which number is the last one?'",
        "/usr/bin/ollama --version",
        "sudo kill -CONT 7",
        "sudo kill -9 7 8",
        "systemctl --user restart llmctl-engine.service",
        "sudo systemctl daemon-reload",
        "sudo journalctl --unit ollama.service --lines 50",
        "loginctl enable-linger ann",
        "sudo chmod -R o-w /models",
        "sudo install -d -o ollama -m 0755 /models",
        "ps -eo pid,user,rss,comm --sort=-rss",
        "ps -o pid,user,lstart,args -p 7",
        "sudo ss -ltnp sport = :11434",
        "lsblk -o NAME,ROTA,SIZE,FSAVAIL,MOUNTPOINT",
        "curl -i --max-time 5 http://127.0.0.1:11434/api/version",
        "docker ps --filter publish=11434",
        "sudo nvidia-smi --id=0 --power-limit=350",
    ],
)
def test_what_can_be_run(command: str) -> None:
    parses(command)


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("llmctl up --profil x", ""),
        ("llmctl no-such-verb", ""),
        ('sudo env A=1 "$(command -v llmctl)" repair --no-such', ""),
        ("ls 'unclosed", ""),
        ("kill 7; reboot", ""),
        ("seq 1 500 | llmctl ask --stast 'Which?'", ""),
        ("llmctl list > models", ""),
        ("kill -CNT 7", ""),
        ("kill PID", ""),
        ("export OLLAMA MODELS=/x", ""),
        ("unset OLLAMA-HOST", ""),
        ("systemctl restart", ""),
        ("systemctl restart the engine", ""),
        ("systemctl restrt ollama.service", "systemctl"),
        ("systemctl --usr restart ollama.service", "systemctl"),
        ("journalctl --units ollama.service", "journalctl"),
        ("findmnt --taget /models", "findmnt"),
        ("df -hj /models", "df"),
        ("chmod o~w /models", ""),
        ("chown --recursve ann /models", "chown"),
        ("ps -o pid,usr -p 7", "ps"),
        ("lsblk -o NAME,TURNS", "lsblk"),
        ("ss -ltnpy", "ss"),
        ("getent host example.org", "getent"),
        ("usermod --apend --groups video ann", "usermod"),
        ("loginctl enable-lingering ann", "loginctl"),
        ("nvidia-smi --power-limt=350", ""),
        ("modprobe -x nvidia", ""),
        ("ollama start", ""),
        ("no-such-program --help", ""),
        ("llmctl engine no-such-verb", ""),
        ("llmctl engine", ""),
        # An option without its value, or with another one.
        ("findmnt --target", ""),
        ("findmnt --target models", ""),
        ("journalctl --unit ollama.service --lines fifty", ""),
        ("journalctl --unit", ""),
        ("journalctl --unit 'the engine'", ""),
        ("sudo install -d -m rwx /models", ""),
        ("ps -o pid,user -p", ""),
        ("curl --max-time soon http://127.0.0.1:11434", ""),
        ("sudo nvidia-smi --id=0 --power-limit=much", ""),
        # Too few operands, or too many.
        ("sudo mount -o remount,rw", ""),
        ("sudo chown ann", ""),
        ("sudo chown -R ann", ""),
        ("chmod o-w", ""),
        ("sudo install -d", ""),
        ("sudo install -d -o ollama -m 0755", ""),
        ("sudo usermod --append --groups video", ""),
        ("sudo systemctl daemon-reload junk", ""),
        ("loginctl enable-linger", ""),
        ("journalctl ollama.service", ""),
        ("mv /models", ""),
        ("sudo modprobe --remove", ""),
        ("curl -i --max-time 5", ""),
    ],
)
def test_what_cannot_be_run(command: str, needs: str) -> None:
    if needs and not installed(needs):
        pytest.skip(f"{needs} is not installed here: nothing tells its options")
    with pytest.raises(AssertionError):
        parses(command)


def test_nothing_is_written_down_of_a_program_that_is_asked() -> None:
    assert not set(HELP) & set(ELSEWHERE)
    assert set(SHAPES) == set(HELP) | set(ELSEWHERE)


def test_only_what_it_calls_for_help_counts_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that a test put on PATH has no help."""
    stand_in = tmp_path / "nvidia-ctk-of-nobody"
    stand_in.write_text("#!/bin/sh\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not installed(stand_in.name)
    assert installed("chmod")
