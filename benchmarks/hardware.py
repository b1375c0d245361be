"""What only a machine with an NVIDIA card can show: resident again after a suspend, and after nvidia_uvm was lost.

    sudo python3 benchmarks/hardware.py suspend [--seconds 20]
    sudo python3 benchmarks/hardware.py uvm

Both need the service of the whole machine (`sudo llmctl install-service --reset-uvm`) with its model resident on the
GPU (`sudo llmctl up`), and nobody else on the card. Each prints how long it took until the model was resident, proved,
and had answered, and what the guard wrote into the journal meanwhile.

`suspend` sends the machine to sleep and has its clock wake it. `uvm` ends the engine, unloads nvidia_uvm and keeps the
engine's unit from loading it again, so that CUDA is dead while NVML answers; it shows whether the guard has root load
the module anew. Where the guard does not, it asks in the guard's place, and says so. In the end all is as it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENGINE, GUARD, UVM_PATH = "llmctl-engine.service", "llmctl-guard.service", "llmctl-uvm.path"
MODULE = "nvidia_uvm"
TRIGGER = Path("/run/llmctl/reset-uvm")
DROP_IN = Path(f"/run/systemd/system/{ENGINE}.d/hardware.conf")
DEADLINE_SECONDS = 600.0
PATIENCE_SECONDS = 240.0
POLL_SECONDS = 0.2


class Refusal(Exception):
    """Why it cannot be shown here."""


def run(*argv: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds)


def does(*argv: str) -> bool:
    return shutil.which(argv[0]) is not None and run(*argv).returncode == 0


def llmctl(*arguments: str) -> bool:
    """Not `status` without --quiet: it asks CUDA for GPUs where something is wrong, and so would load the module."""
    program = shutil.which("llmctl") or "/opt/llmctl/bin/llmctl"
    return run(program, *arguments).returncode == 0


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def require(*conditions: tuple[Callable[[], bool], str]) -> None:
    for holds, reason in conditions:
        if not holds():
            raise Refusal(reason)


def require_service() -> None:
    require(
        (lambda: os.geteuid() == 0, "this needs root"),
        (
            lambda: not does("systemd-detect-virt", "--quiet", "--container"),
            "this is a container: its kernel is shared",
        ),
        (lambda: Path("/sys/module/nvidia").is_dir(), "no NVIDIA driver is loaded"),
        (lambda: does("systemctl", "is-active", "--quiet", ENGINE, GUARD), f"{ENGINE} or {GUARD} does not run"),
        (lambda: llmctl("status", "--quiet"), "the model is not resident and proved: sudo llmctl up"),
    )


def resident() -> bool:
    """Proved, and it answers: what a suspend killed may still look loaded."""
    return llmctl("status", "--quiet") and llmctl("ask", "--max-tokens", "1", "--timeout", "60", "Hello")


def wait(until: Callable[[], bool], seconds: float) -> float | None:
    """Seconds until it was so; None when it was not within the deadline."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if until():
            return time.monotonic() - began
        time.sleep(POLL_SECONDS)
    return None


def report(what: str, since: float, took: float | None) -> int:
    words = f"{took:.1f} s" if took is not None else f"not within {DEADLINE_SECONDS:.0f} s"
    print(f"| {what} | resident, proved and answered after | {words} |\n\nThe guard's journal:\n")
    said = run(
        "journalctl", "--identifier=llmctl-guard", f"--since=@{since:.0f}", "--output=short-precise", "--no-pager"
    )
    print(said.stdout or "nothing")
    return 0 if took is not None else 1


def slept_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def suspend(seconds: int) -> int:
    require_service()
    require(
        (lambda: "mem" in read("/sys/power/state").split(), "this kernel cannot suspend to memory (/sys/power/state)"),
        (lambda: shutil.which("rtcwake") is not None, "there is no rtcwake (util-linux)"),
        (lambda: Path("/sys/class/rtc/rtc0/wakealarm").exists(), "no clock here can wake the machine (rtc0)"),
    )
    keeps = read("/proc/driver/nvidia/params").partition("PreserveVideoMemoryAllocations: ")[2][:1] or "unknown"
    print(f"PreserveVideoMemoryAllocations of the driver: {keeps}", flush=True)
    before, since = slept_seconds(), time.time()
    # rtcwake's own `mem` would pass by systemd's sleep hooks, and with them those of the driver.
    done = run("rtcwake", "--mode", "no", "--seconds", str(seconds))
    if done.returncode == 0:
        done = run("systemctl", "start", "systemd-suspend.service", seconds=seconds + DEADLINE_SECONDS)
    slept = slept_seconds() - before
    if done.returncode != 0 or slept < 1:
        raise Refusal(f"the machine did not sleep: {done.stderr.strip() or f'{slept:.1f} s'}")
    return report(f"a suspend of {slept:.0f} s", since, wait(resident, DEADLINE_SECONDS))


@contextmanager
def without_modprobe() -> Iterator[None]:
    """The engine's unit without its nvidia-modprobe, until the end of this; then as it was."""
    waits = next(line for line in run("systemctl", "cat", ENGINE).stdout.splitlines() if line.endswith("engine wait"))
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nExecStartPre=\n{waits}\n")
    run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        DROP_IN.unlink()
        with suppress(OSError):
            # Unless somebody else has something in it.
            DROP_IN.parent.rmdir()
        run("systemctl", "daemon-reload")
        run("modprobe", MODULE)
        if shutil.which("nvidia-modprobe"):
            run("nvidia-modprobe", "-u", "-c", "0")


def uvm() -> int:
    require_service()
    require(
        (lambda: Path(f"/sys/module/{MODULE}").is_dir(), f"{MODULE} is not a loaded module"),
        (lambda: does("systemctl", "is-active", "--quiet", UVM_PATH), "sudo llmctl install-service --reset-uvm"),
    )
    with without_modprobe():
        since = time.time()
        # Restart= is faster than anybody here; the module goes while the engine is between two lives, or waits.
        run("systemctl", "kill", "--signal=KILL", ENGINE)
        if wait(lambda: does("modprobe", "--remove", MODULE), 30) is None:
            raise Refusal(
                f"{MODULE} is in use by another program: {read(f'/sys/module/{MODULE}/refcnt').strip()} users"
            )
        began = time.monotonic()
        asked = wait(lambda: TRIGGER.exists() or Path(f"/sys/module/{MODULE}").is_dir(), PATIENCE_SECONDS)
        if asked is None:
            print(f"NOT SHOWN: the guard did not ask for {MODULE} within {PATIENCE_SECONDS:.0f} s; asked in its place")
            TRIGGER.touch()
        else:
            print(f"{MODULE} was asked for after {asked:.1f} s")
        rest = wait(resident, DEADLINE_SECONDS)
        return report(f"without {MODULE}", since, None if rest is None else time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asleep = commands.add_parser("suspend", help="sleep, wake, and wait until the model answers again")
    asleep.add_argument("--seconds", type=int, default=20)
    commands.add_parser("uvm", help="unload nvidia_uvm, and wait until the model answers again")
    given = parser.parse_args()
    try:
        return suspend(given.seconds) if given.command == "suspend" else uvm()
    except Refusal as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
