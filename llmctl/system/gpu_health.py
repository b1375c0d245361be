"""Whether the GPUs and their driver answer, and what one process holds of them: one session of NVML for both."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from llmctl.system import nvml

State = Literal["fine", "lost", "mismatch", "absent", "unknown"]


@dataclass(frozen=True)
class GpuHealth:
    """`unknown`: there is no NVML on this machine. `held_bytes`: by pid; None where NVML cannot tell."""

    state: State
    words: str
    held_bytes: dict[int, int | None]


def look(pids: tuple[int, ...] = ()) -> GpuHealth:
    """Never raises: what NVML says goes into the state."""
    try:
        ctypes.CDLL(nvml.LIBRARY)
    except OSError:
        return GpuHealth("unknown", "", dict.fromkeys(pids))
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuHealth(state_of(pynvml, error), f"NVML: {error}", dict.fromkeys(pids))
    try:
        return cards(pynvml, pids)
    finally:
        nvml.asked(pynvml, pynvml.nvmlShutdown)


def cards(library: Any, pids: tuple[int, ...]) -> GpuHealth:
    worst: tuple[State, str] = ("fine", "")
    handles = []
    for index in range(nvml.count(library)):
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
            library.nvmlDeviceGetMemoryInfo(handle)
            handles.append(handle)
        except library.NVMLError as error:
            if (state := state_of(library, error)) != "unknown":
                worst = (state, f"GPU {index}: {error}")
    if not handles and worst[0] == "fine":
        worst = ("absent", "NVML shows no GPU")
    unlisted = 0 if nvml.on_the_host() else None
    return GpuHealth(*worst, {pid: total(partial(nvml.held, library), handles, pid, unlisted) for pid in pids})


def total(held: Callable[..., int | None], handles: list[Any], pid: int, unlisted: int | None) -> int | None:
    """Bytes of a process on all cards; None when one of them cannot tell, or there is none."""
    each = [held(handle, pid, unlisted) for handle in handles]
    known = [count for count in each if count is not None]
    return sum(known) if known and len(known) == len(each) else None


def state_of(library: Any, error: Any) -> State:
    """What an error of NVML means for whoever wants to use the GPU. An unknown one says nothing."""
    states: dict[int, State] = {
        library.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "mismatch",
        library.NVML_ERROR_GPU_IS_LOST: "lost",
        library.NVML_ERROR_RESET_REQUIRED: "lost",
        library.NVML_ERROR_DRIVER_NOT_LOADED: "absent",
    }
    return states.get(error.value, "unknown")
