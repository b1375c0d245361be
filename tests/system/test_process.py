"""Processes, as the kernel has them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from llmctl.system import process

PROGRAM = """
import signal, sys, time
from pathlib import Path
def ended(*_):
    Path(sys.argv[1]).touch()
    sys.exit()
signal.signal(signal.SIGTERM, ended)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_stopped_process_ends_itself_within_the_grace(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(ended)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        process.stop(child.pid, grace_seconds=120)
        assert ended.exists()
