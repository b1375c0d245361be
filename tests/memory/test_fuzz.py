"""The GGUF reader under a fuzzer that sees which lines an input reaches; benchmarks/fuzz_gguf.py runs it for longer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz_gguf import seeds

CHECKOUT = Path(__file__).parents[2]
SECONDS = 30


@pytest.mark.real("atheris")
def test_half_a_minute_of_fuzzing_finds_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    seeds(corpus)
    script = CHECKOUT / "benchmarks" / "fuzz_gguf.py"
    # Through a shell that forks: the peak that the fuzzer measures would begin with that of the process which
    # executes it, and a test runner has grown.
    command = [
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        sys.executable,
        str(script),
        "--inside",
        "--seconds",
        str(SECONDS),
        "--corpus",
        str(corpus),
    ]
    ran = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    tried = re.search(r"stat::number_of_executed_units: (\d+)", ran.stderr)
    assert tried, ran.stderr[-4000:]
    assert int(tried[1]) > 1000
