"""NVIDIA's management library, by pynvml: the cards, and who holds how much of them.

Nothing here raises for what is absent: a machine without a driver has no cards and a reason. A figure that
NVML cannot tell is None, never 0. The index of a card is NVML's, also where a card before it does not answer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llmctl.core.gpu import Gpu

LIBRARY = "libnvidia-ml.so.1"
NO_DRIVER = f"no NVIDIA driver: {LIBRARY} is not on this machine"
# The inode of the machine's first pid namespace, a constant of Linux (include/linux/proc_ns.h, PROC_PID_INIT_INO).
FIRST_PID_NAMESPACE = 0xEFFFFFFC
T = TypeVar("T")


@dataclass(frozen=True)
class GpuInventory:
    """The cards that answer. `unavailable` says in words why there are none, or what ails those that do not."""

    gpus: tuple[Gpu, ...]
    driver_version: str | None
    unavailable: str | None


def gpus() -> GpuInventory:
    """The cards that NVML shows, with their memory now."""
    with session() as (nvml, problem):
        if nvml is None:
            return GpuInventory((), None, problem)
        driver = asked(nvml, nvml.nvmlSystemGetDriverVersion)
        found: list[Gpu] = []
        problems: list[str] = []
        for index in range(count(nvml)):
            try:
                found.append(card(nvml, index))
            except nvml.NVMLError as error:
                problems.append(f"GPU {index}: {error}")
        return GpuInventory(tuple(found), driver, "; ".join(problems) or None)


def used_bytes() -> int | None:
    """Bytes in use on all cards together; None where one of them cannot tell, or none is there."""
    with session() as (nvml, _):
        if nvml is None:
            return None
        used = [memory_used(nvml, handle) for handle in handles(nvml).values()]
        known = [size for size in used if size is not None]
        return sum(known) if known and len(known) == len(used) else None


def memory_used(nvml: Any, handle: Any) -> int | None:
    return asked(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))


def process_bytes(pid: int) -> dict[int, int | None]:
    """Bytes that a process holds, by card index; empty where NVML is not there, None where it cannot tell.

    NVML lists processes by their number on the host. A card that does not list this one holds 0 of it on the
    host; inside a container or WSL2, where it goes by another number, that is unknown.
    """
    with session() as (nvml, _):
        if nvml is None:
            return {}
        unlisted = 0 if on_the_host() else None
        return {index: held(nvml, handle, pid, unlisted) for index, handle in handles(nvml).items()}


def total_process_bytes(pid: int) -> int | None:
    """Bytes that a process holds on all cards; None when any of them cannot tell, or there is none."""
    cards = list(process_bytes(pid).values())
    known = [count for count in cards if count is not None]
    return sum(known) if known and len(known) == len(cards) else None


def held(nvml: Any, handle: Any, pid: int, unlisted: int | None) -> int | None:
    compute = asked(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))
    graphics = asked(nvml, lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle))
    if compute is None or graphics is None:
        return None
    sizes = [process.usedGpuMemory for process in (*compute, *graphics) if process.pid == pid]
    if not sizes:
        return unlisted
    # A process can be listed as compute and as graphics; both times with all that it holds.
    return None if None in sizes else max(sizes)


def on_the_host() -> bool:
    """Whether this process sees the host's process numbers."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return False


@contextmanager
def session() -> Iterator[tuple[Any, str | None]]:
    """pynvml, initialised, or None and why not. Looks for the library first: pynvml is slow to import."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        yield None, NO_DRIVER
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield None, f"NVML: {error}"
        return
    try:
        yield pynvml, None
    finally:
        asked(pynvml, pynvml.nvmlShutdown)


def asked(nvml: Any, question: Callable[[], T]) -> T | None:
    """The answer, or None when NVML cannot give it."""
    try:
        return question()
    except nvml.NVMLError:
        return None


def count(nvml: Any) -> int:
    return asked(nvml, nvml.nvmlDeviceGetCount) or 0


def handles(nvml: Any) -> dict[int, Any]:
    """By index; a card that fell off the bus has none."""
    found = {index: asked(nvml, partial(nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(count(nvml))}
    return {index: handle for index, handle in found.items() if handle is not None}


def card(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    uuid = asked(nvml, lambda: nvml.nvmlDeviceGetUUID(handle))
    return Gpu(index, uuid, nvml.nvmlDeviceGetName(handle), int(memory.total), int(memory.free))
