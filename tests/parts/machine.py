"""What belongs to the machine and not to a test: caches, the environment it was started with, ports."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from pathlib import Path

import platformdirs

# As it was before any test changed it: package tools (pip) are run with this one.
ENVIRON = dict(os.environ)
CACHE = platformdirs.user_cache_path("llmctl-tests", appauthor=False)
# pip's own cache, so that a test with a home of its own does not download again.
PIP_CACHE = platformdirs.user_cache_path("pip", appauthor=False)
ENGINES = Path(
    os.environ.get("LLMCTL_ENGINES_DIR") or platformdirs.user_data_path("llmctl", appauthor=False) / "engines"
)

# Below the range from which the kernel hands out ports (32768 on), and one stretch per xdist worker: nobody else
# takes a port between its choice here and its use by a server.
_FIRST_PORT = 20000
_PORTS_PER_WORKER = 1000

# Before a server's command: end it when the process that runs the tests is killed and can no longer end it itself.
ENDS_WITH_TESTS = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _ports() -> itertools.cycle[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker % 12 * _PORTS_PER_WORKER
    # Two test runs at once start at different places.
    start = os.getpid() % _PORTS_PER_WORKER
    return itertools.cycle([first + (start + i) % _PORTS_PER_WORKER for i in range(_PORTS_PER_WORKER)])


_PORT_CYCLE = _ports()


def free_port() -> int:
    """A loopback port that nothing listens on."""
    for port in itertools.islice(_PORT_CYCLE, _PORTS_PER_WORKER):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on 127.0.0.1")
