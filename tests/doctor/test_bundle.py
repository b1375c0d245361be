"""The archive for a bug report: what is in it, and what is not."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from llmctl.core.engine_log import telling
from llmctl.core.redaction import REMOVED, Names, redacted, text
from tests.doctor.conftest import Patient
from tests.parts.nvml import NvmlStandin, ScriptedGpu

PROMPT = "the harvest moon over Ljubljana"
PASSWORD = "correct-horse-battery"
KEY = "sk-proj-9f8e7d6c5b4a39281706"
SERIAL = "GPU-3f2a7c10-0000-4000-8000-0123456789ab"


@pytest.mark.real("ollama", "model", "nvml")
def test_nothing_secret_leaves_the_machine(with_driver: tuple[Patient, NvmlStandin], tmp_path: Path) -> None:
    """The server itself prints its proxy; a prompt is planted where its debug log would have it."""
    patient, standin = with_driver
    standin.set(ScriptedGpu(uuid=SERIAL))
    patient.environ |= {
        "HTTPS_PROXY": f"http://someone:{PASSWORD}@proxy.example:3128",
        "OLLAMA_API_KEY": KEY,
        "OLLAMA_DEBUG": "2",
        "CUDA_VISIBLE_DEVICES": SERIAL,
    }
    patient.up()
    log = patient.state / "logs" / "server.log"
    assert PASSWORD in log.read_text(), "the server no longer prints its proxy: plant this one elsewhere"
    with log.open("a") as file:
        file.write(f'time=now level=TRACE source=x.go:1 msg=completion prompt="{PROMPT}"\n')
        file.write(f"load_tensors: offloaded 1/19 layers to GPU {SERIAL} of {socket.gethostname()} --api-key {KEY}\n")

    path = tmp_path / "bundle.tar.gz"
    done = patient("doctor", "--bundle", str(path))
    assert done.code in {0, 5}, done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        content = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert sorted(content) == [
        f"llmctl-doctor/{name}" for name in ("facts.json", "log.txt", "report.json", "versions.json")
    ]
    secrets = [PROMPT, PASSWORD, KEY, SERIAL, os.environ["HOME"]]
    people = {socket.gethostname(), getpass.getuser()} - {"root"}
    for name, inside in content.items():
        assert not [secret for secret in secrets if secret in inside], name
        assert not [person for person in people if re.search(rf"\b{re.escape(person)}\b", inside)], name
    facts = json.loads(content["llmctl-doctor/facts.json"])
    assert facts["areas"]["engine"]["executable"].endswith("bin/ollama")
    assert "buffer size" in content["llmctl-doctor/log.txt"]
    assert json.loads(content["llmctl-doctor/report.json"])["verdict"]


NAMES = Names("tower.example.org", ("ann", "root"), {"/home/ann": "~"})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://u:p@proxy:3128 x", f"http://{REMOVED}@proxy:3128 x"),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {REMOVED}"),
        ("--api-key abcdef --port 3", f"--api-key {REMOVED} --port 3"),
        ("MY_TOKEN=abc next", f"MY_TOKEN={REMOVED} next"),
        ("http://u:pa/ss-word@proxy", f"http://{REMOVED}@proxy"),
        ("http://u:p@ss@proxy:3128", f"http://{REMOVED}@proxy:3128"),
        ("hf_abcdefghijklmnopqrst", REMOVED),
        ("glpat-abcdefghijklmnopqrst", REMOVED),
        ("at 09:21:50 from fe80::1c2d:3e4f and 2001:db8:0:0:0:0:2:1", "at 09:21:50 from [address] and [address]"),
        ("[::1]:11434", "[::1]:11434"),
        ("from 192.168.1.7 to 127.0.0.1", "from [address] to 127.0.0.1"),
        ("/home/ann/.ollama of ann on tower", "~/.ollama of [user] on [host]"),
        ("root@tower.example.org", "root@[host]"),
        ("annotation", "annotation"),
        ("sha256:" + "ab" * 32, "sha256:" + "ab" * 32),
    ],
)
def test_what_is_removed_from_a_text(given: str, wanted: str) -> None:
    assert text(given, NAMES) == wanted


def test_fields_lose_what_their_name_says() -> None:
    facts = {
        "environ": {"OLLAMA_API_KEY": "x", "OLLAMA_HOST": "127.0.0.1", "https_proxy": "ann:horse@proxy:3128"},
        "user": "ann",
        "owner": "root",
        "command": "python train.py --secret",
        "held_bytes": 5,
    }
    assert redacted(facts, NAMES) == {
        "environ": {"OLLAMA_API_KEY": REMOVED, "OLLAMA_HOST": "127.0.0.1", "https_proxy": REMOVED},
        "user": "[user]",
        "owner": "root",
        "command": "python …",
        "held_bytes": 5,
    }


# As a debug log would have them; each holds words for which a line is kept elsewhere.
PROMPTS = (
    f'time=2026-11-23T08:00:00Z level=TRACE source=x.go:1 msg=completion prompt="{PROMPT}: discover, out of memory"',
    f'time=2026-11-23T08:00:00Z level=DEBUG source=x.go:1 msg="Listening on {PROMPT}"',
    f'time=2026-11-23T08:00:00Z level=INFO source=x.go:1 msg="chat request" prompt="offloaded 1/2 layers {PROMPT}"',
    f"slot print: {PROMPT} failed to allocate",
    f"{PROMPT} buffer size = 12 MiB",
    f'time=2026-11-23T08:00:00Z level=WARN source=x.go:1 msg="odd" text="starting llama-server {PROMPT}"',
    f"user: [GIN] {PROMPT}",
)


@pytest.mark.parametrize("line", PROMPTS)
def test_no_line_that_could_hold_a_prompt_is_taken(line: str) -> None:
    assert list(telling(line)) == []


def test_lines_that_tell_how_the_server_runs_are_taken() -> None:
    lines = [
        'time=2026-11-23T08:00:00Z level=INFO source=types.go:32 msg="inference compute" id=cpu library=cpu',
        "load_tensors:          CPU model buffer size =   222.51 MiB",
        "load_tensors: offloaded 19/19 layers to GPU",
        "srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 59648",
        '[GIN] 2026/11/23 - 07:41:17 | 200 |     354.938µs |       127.0.0.1 | POST     "/api/chat"',
    ]
    assert list(telling("\n".join(lines))) == lines
