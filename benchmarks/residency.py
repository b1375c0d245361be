"""How long until the model is resident after its units were started, beside a bare `ollama serve` and one load.

    python benchmarks/residency.py [--rounds 5]

Prints a Markdown table. Needs root: the service is installed in a container of the tests, and the bare server is a
unit in the same one, with the same store and the same model (the packaged starter, which no GPU is required for). The
rounds alternate. "Resident" is the guard's READY=1: proved, and answered for one token; systemd's own clock tells both
ends. The bare server has it when the load's request returns. The guard looks every 5 seconds, as it is shipped.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from llmctl.core.guard.facts import Limits  # noqa: E402
from tests.parts import engine as engine_part  # noqa: E402
from tests.parts import machine, rootfs, starter, systemd  # noqa: E402
from tests.parts.systemd import Container  # noqa: E402
from tests.service.conftest import CHECKOUT as INSIDE  # noqa: E402
from tests.service.conftest import ENGINE, STARTER_GGUF  # noqa: E402
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET, Service  # noqa: E402

RATIO = 1.2
DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.005
STORE = "/var/lib/llmctl/models"
BARE = "bare.service"


def answer(port: int, path: str, body: dict[str, object] | None = None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        found = connection.getresponse()
        found.read()
        return found.status == 200
    finally:
        connection.close()


def bare(container: Container, port: int, alias: str) -> float:
    """Seconds from the start of a server to the end of its first load."""
    settings = {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": STORE,
        "HOME": "/var/lib/llmctl/home",
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NO_CLOUD": "1",
    }
    variables = [f"--setenv={name}={value}" for name, value in settings.items()]
    began = time.monotonic()
    container.run(
        "systemd-run", "--quiet", f"--unit={BARE}", "--uid=llmctl", *variables, f"{ENGINE}/bin/ollama", "serve"
    )
    while True:
        with suppress(OSError):
            if answer(port, "/api/version"):
                break
        if time.monotonic() - began > DEADLINE_SECONDS:
            raise TimeoutError("the bare server does not answer")
        time.sleep(POLL_SECONDS)
    if not answer(port, "/api/generate", {"model": alias, "stream": False}):
        raise RuntimeError("the bare server does not load the model")
    took = time.monotonic() - began
    container.run("systemctl", "stop", BARE)
    return took


def served(container: Container) -> float:
    """Seconds from the start of the engine's unit until the guard said that it is ready."""
    container.run("rm", "-f", "/run/llmctl/starts.json")
    container.run("systemctl", "start", "--no-block", TARGET)
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", DEADLINE_SECONDS, "the guard")
    began = int(container.unit(ENGINE_UNIT)["InactiveExitTimestampMonotonic"])
    ended = int(container.unit(GUARD_UNIT)["ActiveEnterTimestampMonotonic"])
    container.run("systemctl", "stop", TARGET, ENGINE_UNIT, GUARD_UNIT)
    return (ended - began) / 1e6


def measure(container: Container, rounds: int) -> tuple[list[float], list[float]]:
    service = Service(container, machine.free_port())
    for done in (service.install(), service.llmctl("up", "--json")):
        if done.code != 0:
            raise RuntimeError(done.err)
    alias = done.json["models"][0]["alias"]
    container.run("systemctl", "stop", TARGET, ENGINE_UNIT, GUARD_UNIT)
    without, within = [], []
    for number in range(rounds):
        without.append(bare(container, machine.free_port(), alias))
        within.append(served(container))
        print(f"round {number + 1}: bare {without[-1]:.2f} s, service {within[-1]:.2f} s", file=sys.stderr, flush=True)
    return without, within


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = engine_part.find()
    if found is None:
        sys.exit(f"error: {engine_part.MISSING}")
    if reason := systemd.unavailable():
        sys.exit(f"error: {reason}")
    binds = {
        str(rootfs.INSTALLATION): rootfs.installation(),
        str(INSIDE): rootfs.CHECKOUT,
        str(ENGINE): found.root,
        str(STARTER_GGUF): starter.path(),
    }
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as folder:
        container = systemd.start(Path(folder), binds)
        try:
            without, within = measure(container, rounds)
        finally:
            container.close()
    interval = Limits().interval_seconds
    plain, service = statistics.median(without), statistics.median(within)
    bound = RATIO * plain + interval
    print(f"{platform.machine()}, {os.cpu_count()} cores, Ollama {found.version}; medians of {rounds} rounds\n")
    print("| until resident | seconds | bound |\n|---|---|---|")
    print(f"| bare `ollama serve` and a load | {plain:.2f} ({min(without):.2f}-{max(without):.2f}) | |")
    print(f"| the service | {service:.2f} ({min(within):.2f}-{max(within):.2f}) | {bound:.2f} |")
    print(f"\n{RATIO} x bare + {interval:.0f} s, the guard's interval: {'held' if service <= bound else 'MISSED'}")
    return 0 if service <= bound else 1


if __name__ == "__main__":
    sys.exit(main())
