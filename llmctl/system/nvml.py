"""NVIDIA's management library, by pynvml: the cards, and who holds how much of them.

Nothing here raises for what is absent: a machine without a driver has no cards and a reason. A figure that
NVML cannot tell (per process in WSL2 and in containers) is None, never 0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from llmctl.core.gpu import Gpu

LIBRARY = "libnvidia-ml.so.1"
T = TypeVar("T")


@dataclass(frozen=True)
class GpuInventory:
    """All cards, or in words why there are none to be seen."""

    gpus: tuple[Gpu, ...]
    driver_version: str | None
    unavailable: str | None


def gpus() -> GpuInventory:
    """The cards that NVML shows, with their memory now."""
    with session() as (nvml, problem):
        if nvml is None:
            return GpuInventory((), None, problem)
        driver = asked(nvml, lambda: text(nvml.nvmlSystemGetDriverVersion()))
        found = [asked(nvml, lambda index=index: card(nvml, index)) for index in range(count(nvml))]  # type: ignore[misc]
        return GpuInventory(tuple(gpu for gpu in found if gpu is not None), driver, None)


def used_bytes() -> int | None:
    """Bytes in use on all cards together; None where NVML is not there."""
    with session() as (nvml, _):
        if nvml is None:
            return None
        used = [
            asked(nvml, lambda handle=handle: nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles(nvml)
        ]
        known = [bytes_used for bytes_used in used if bytes_used is not None]
        return sum(known) if known else None


def process_bytes(pid: int) -> dict[int, int | None]:
    """Bytes that a process holds, by card index; empty where NVML is not there, None where it cannot tell.

    A card on which the process is not listed holds 0 of it.
    """
    with session() as (nvml, _):
        if nvml is None:
            return {}
        return {index: held(nvml, handle, pid) for index, handle in enumerate(handles(nvml))}


def held(nvml: Any, handle: Any, pid: int) -> int | None:
    listed: list[Any] = []
    for query in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        processes = asked(nvml, lambda query=query: query(handle))  # type: ignore[misc]
        if processes is None:
            return None
        listed += [process for process in processes if process.pid == pid]
    known = [process.usedGpuMemory for process in listed]
    if any(used is None for used in known):
        return None
    # One process can be listed as compute and as graphics, with the same memory.
    return max(known, default=0)


@contextmanager
def session() -> Iterator[tuple[Any, str | None]]:
    """pynvml, initialised, or None and why not. Looks for the library first: pynvml is slow to import."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        yield None, "no NVIDIA driver: libnvidia-ml.so.1 is not on this machine"
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


def handles(nvml: Any) -> list[Any]:
    found = [asked(nvml, lambda index=index: nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count(nvml))]  # type: ignore[misc]
    return [handle for handle in found if handle is not None]


def card(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    uuid = asked(nvml, lambda: text(nvml.nvmlDeviceGetUUID(handle)))
    return Gpu(index, uuid, text(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free))


def text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
