"""One fault after another at random, many of them while the guard still mends the last one; then all must be well.

LLMCTL_TEST_FAULTS=200 LLMCTL_TEST_SEED=1 python -m pytest -s tests/service/faults/test_soak.py
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.parts import nvml
from tests.parts.nvml import NvmlStandin, ScriptedGpu
from tests.service.conftest import NVML, SHARED
from tests.service.faults import clock
from tests.service.faults.served import CLOCK, INTERVAL_SECONDS, Served, guard_command
from tests.service.faults.test_store import STATE, weights
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET

pytestmark = pytest.mark.real("systemd", "ollama", "model", "nvml")

# Read when imported: the tests themselves run with every LLMCTL_* cleared.
ASKED = int(os.environ.get("LLMCTL_TEST_FAULTS", "0"))
SEED = int(os.environ.get("LLMCTL_TEST_SEED", "6"))
CHANCE = random.Random(SEED)
# Without a number, as many as fit into this; with one, it must be reached in the other.
SOME_SECONDS = 100.0
ALL_SECONDS = 900.0
QUICK_SECONDS = 0.3
# What Python's allocator may do between two looks; a leak of 1 KiB for each look would be more.
GROWTH_BYTES = 3 << 20


def kill(served: Served, *programs: str, number: int = signal.SIGKILL) -> None:
    pids = [str(pid) for program in programs for pid in served.processes(program)]
    script = 'number=$1; shift; [ $# = 0 ] || kill -"$number" "$@"'
    served.container.run("sh", "-c", script, "sh", str(int(number)), *pids, check=False)


def another_context(served: Served) -> None:
    served.generate(options={"num_ctx": 1024}, seconds=8)


def held(served: Served) -> None:
    assert served.llmctl("guard", "--hold", "2s").code == 0
    kill(served, "llama-server")


def pulled(served: Served) -> None:
    assert served.llmctl("down").code == 0
    served.llmctl("up")


def moment(chance: random.Random) -> None:
    """As long as a fault holds that then goes away by itself."""
    time.sleep(chance.uniform(0.3, 1.5))


def clock_jumps(served: Served) -> None:
    clock.shift(served.folder / "shared" / "shift", wall=CHANCE.choice([-86_400, -60, 0, 60, 86_400]))


def resumed(served: Served) -> None:
    clock.shift(served.folder / "shared" / "shift", slept=CHANCE.randrange(60, 86_400))


def driver_fails(served: Served) -> None:
    """For a moment the driver is not what it was, and the runner dies with it."""
    standin = driver(served)
    code = CHANCE.choice(["DRIVER_NOT_LOADED", "LIB_RM_VERSION_MISMATCH", "GPU_IS_LOST", "UNKNOWN"])
    call = CHANCE.choice(["nvmlInitWithFlags", "nvmlDeviceGetMemoryInfo"])
    standin.set(ScriptedGpu(), errors={call: code})
    kill(served, "llama-server")
    moment(CHANCE)
    standin.set(ScriptedGpu())


def driver(served: Served) -> NvmlStandin:
    return NvmlStandin(nvml.library(), served.folder / "shared" / "nvml.script")


# A small disk of its own, until the next reboot.
SMALL_STATE = """
cp -a "$1" /var/tmp/state && mount -t tmpfs -o size=1m,mode=0755 tmpfs "$1" && cp -a /var/tmp/state/. "$1"/
chown --reference=/var/tmp/state "$1"; rm -rf /var/tmp/state
"""
FILL = 'mountpoint -q "$1" && dd if=/dev/zero of="$1"/filling bs=4k 2>/dev/null; true'


def state_is_full(served: Served) -> None:
    served.container.run("sh", "-c", FILL, "sh", STATE)
    kill(served, "llama-server")
    moment(CHANCE)
    served.container.run("rm", "-f", f"{STATE}/filling")


HEAD = 'dd if="$1" of=/var/tmp/head bs=64K count=1 && dd if=/dev/zero of="$1" bs=64K count=1 conv=notrunc'
BACK = 'dd if=/var/tmp/head of="$1" bs=64K conv=notrunc && rm /var/tmp/head'


def weights_damaged(served: Served) -> None:
    """The file is bad while a server starts and loads it, and then it is good again."""
    blob = weights(served)
    served.container.run("sh", "-c", HEAD, "sh", blob)
    try:
        kill(served, "ollama", "llama-server")
        moment(CHANCE)
    finally:
        served.container.run("sh", "-c", BACK, "sh", blob)


# What ends the guard's process is left out in the second half, so that there is one whose memory can be watched.
FAULTS: dict[str, Callable[[Served], object]] = {
    "kill -9 of the runner": lambda served: kill(served, "llama-server"),
    "kill -9 of the server": lambda served: kill(served, "ollama"),
    "kill -9 of server and runner": lambda served: kill(served, "ollama", "llama-server"),
    "SIGSTOP of the runner": lambda served: kill(served, "llama-server", number=signal.SIGSTOP),
    "SIGTERM of the server": lambda served: kill(served, "ollama", number=signal.SIGTERM),
    "keep_alive 0": lambda served: served.generate(keep_alive=0, seconds=8),
    "another model": lambda served: served.generate(served.make_rival(), seconds=8),
    "another context": another_context,
    "ollama rm": lambda served: served.api("/api/delete", {"model": served.alias}, method="DELETE"),
    "restart of the engine": lambda served: served.container.run("systemctl", "--no-block", "restart", ENGINE_UNIT),
    "a hold of 2 s, and kill -9 of the runner": held,
    "yield": lambda served: served.llmctl("yield", "--", "true"),
    "a jump of the clock": clock_jumps,
    "a resume": resumed,
    "NVML fails for a moment": driver_fails,
    "the state is full for a moment": state_is_full,
    "the weights are damaged for a moment": weights_damaged,
}
ENDS_GUARD: dict[str, Callable[[Served], object]] = {
    "kill -9 of the guard": lambda served: kill(served, "llmctl"),
    "kill -9 of all three": lambda served: kill(served, "llmctl", "ollama", "llama-server"),
    "restart of the guard": lambda served: served.container.run("systemctl", "--no-block", "restart", GUARD_UNIT),
    "down and up": pulled,
    "a reboot": lambda served: served.container.reboot(),
}


def rss_bytes(served: Served) -> int:
    """What the guard has in memory."""
    (pid,) = served.pids(GUARD_UNIT)
    lines = served.container.read(f"/proc/{pid}/status").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def struck(served: Served, name: str, faults: dict[str, Callable[[Served], object]]) -> str:
    # So often in so short a time would end in `failed`, as it should.
    served.forget_starts()
    with suppress(OSError, AssertionError, http.client.HTTPException):
        faults[name](served)
    return name


def strike(served: Served, chance: random.Random, faults: dict[str, Callable[[Served], object]]) -> str:
    """One fault, then either until the model is back, or a moment only."""
    name = struck(served, chance.choice(list(faults)), faults)
    if chance.random() < 0.3:
        served.until(f"the model after {name}", lambda: served.ready and served.resident)
    else:
        time.sleep(chance.uniform(0, 2))
    return name


@pytest.mark.timeout(ALL_SECONDS + 200 if ASKED else None)
def test_random_faults(served: Served) -> None:
    chance, began, done = CHANCE, time.monotonic(), Counter[str]()
    limit = ALL_SECONDS if ASKED else SOME_SECONDS

    def more(share: float) -> bool:
        if ASKED:
            return done.total() < share * ASKED
        return time.monotonic() - began < share * limit

    clock.shift(served.folder / "shared" / "shift")
    driver(served).set(ScriptedGpu())
    shifted = f"LD_PRELOAD={CLOCK / clock.NAME} CLOCK_SHIFT={SHARED / 'shift'}"
    scripted = f"LD_LIBRARY_PATH={NVML} NVML_STANDIN={SHARED / 'nvml.script'}"
    served.add(GUARD_UNIT, "interval", *guard_command(QUICK_SECONDS), f"Environment={shifted} {scripted}")
    served.container.run("systemctl", "stop", GUARD_UNIT, ENGINE_UNIT)
    served.container.run("sh", "-c", SMALL_STATE, "sh", STATE)
    try:
        served.calm()
        served.make_rival()
        while more(0.5):
            done[strike(served, chance, {**FAULTS, **ENDS_GUARD})] += 1
        served.calm()
        (guard,) = served.pids(GUARD_UNIT)
        # What it imports or reads only when it is needed comes first.
        for name in ("ollama rm", "the weights are damaged for a moment", "another model", "yield"):
            done[struck(served, name, FAULTS)] += 1
            served.until(f"the model after {name}", lambda: served.ready and served.resident)
        while more(0.75):
            done[strike(served, chance, FAULTS)] += 1
        before = rss_bytes(served)
        while more(1.0):
            done[strike(served, chance, FAULTS)] += 1
        served.forget_starts()
        served.sound()
        took, after = time.monotonic() - began, rss_bytes(served)
        print(f"{done.total()} faults with seed {SEED} in {took:.0f} s; the guard: {before} bytes, then {after}")
        print("\n".join(f"{count:4} {name}" for name, count in done.most_common()))
        assert served.pids(GUARD_UNIT) == [guard]
        assert after - before <= GROWTH_BYTES
        assert served.llmctl("verify").code == 0
        assert not ASKED or took < limit
    finally:
        served.add(GUARD_UNIT, "interval", *guard_command(INTERVAL_SECONDS))
        served.container.run("systemctl", "stop", GUARD_UNIT, ENGINE_UNIT)
        served.container.run("sh", "-c", 'mountpoint -q "$1" && umount "$1"; true', "sh", STATE)
        served.container.run("systemctl", "start", "--no-block", TARGET, ENGINE_UNIT, GUARD_UNIT)
