"""What is taken for a command that can be run, and what is not."""

from __future__ import annotations

import shutil

import pytest

from tests.doctor.remedies import ELSEWHERE, HELP, parses


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
    ],
)
def test_what_cannot_be_run(command: str, needs: str) -> None:
    if needs and not shutil.which(needs):
        pytest.skip(f"{needs} is not installed here: nothing tells its options")
    with pytest.raises(BaseException):  # noqa: B017 - click's own, KeyError or an assertion
        parses(command)


def test_nothing_is_written_down_of_a_program_that_is_asked() -> None:
    assert not set(HELP) & set(ELSEWHERE)
