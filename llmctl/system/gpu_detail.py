"""All that NVML tells of each card, asked once in one session: for a report, not for a look every few seconds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.checks.facts.gpu import Card, GpuProcess, State
from llmctl.system import nvml
from llmctl.system.gpu_health import state_of

PROC = Path("/proc")
# nvml.h, nvmlClocksEventReasons; idle (1), application clocks (2), sync boost (16), display clocks (256) slow nothing
# that was asked for.
THROTTLES = {
    4: "sw_power",
    8: "hw_slowdown",
    32: "sw_thermal",
    64: "hw_thermal",
    128: "hw_power_brake",
}
SLOWDOWN, MOST = 1, 3


@dataclass(frozen=True)
class Seen:
    """The driver and its cards. `state` `unknown`: there is no NVML library; `library` is its file's version."""

    state: State
    words: str = ""
    driver: str | None = None
    library: str | None = None
    cards: tuple[Card, ...] = ()


def look() -> Seen:
    """Never raises: what NVML says goes into the state."""
    try:
        ctypes.CDLL(nvml.LIBRARY)
    except OSError:
        return Seen("unknown", f"{nvml.LIBRARY} is not on this machine")
    import pynvml

    library = library_version()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Seen(state_of(pynvml, error), f"NVML: {error}", library=library)
    try:
        return every(pynvml, library)
    finally:
        nvml.asked(pynvml, pynvml.nvmlShutdown)


def library_version() -> str | None:
    """The version in the name of the loaded file: libnvidia-ml.so.570.86.10."""
    with suppress(OSError):
        for line in (PROC / "self" / "maps").read_text().splitlines():
            if "libnvidia-ml.so" in line:
                version = Path(line.split(None, 5)[5]).resolve().name.partition(".so.")[2]
                return version if "." in version else None
    return None


def every(library: Any, version: str | None) -> Seen:
    worst: tuple[State, str] = ("fine", "")
    found = []
    for index in range(nvml.count(library)):
        try:
            found.append(card(library, index))
        except library.NVMLError as error:
            state = state_of(library, error)
            worst = ("lost" if state == "unknown" else state, f"GPU {index}: {error}")
    if not found and worst[0] == "fine":
        worst = ("absent", "NVML shows no GPU")
    return Seen(*worst, nvml.asked(library, library.nvmlSystemGetDriverVersion), version, tuple(found))


def card(library: Any, index: int) -> Card:
    """Raises NVMLError for a card that does not answer at all."""
    handle = library.nvmlDeviceGetHandleByIndex(index)
    basic = nvml.card(library, index)

    def told(name: str, *arguments: Any) -> Any:
        """What a function of NVML says of this card; None where card or library do not have it."""
        function = getattr(library, name)
        return nvml.asked(library, lambda: function(handle, *arguments))

    def watts(name: str) -> float | None:
        found = told(name)
        return None if found is None else found / 1000

    def flag(name: str) -> bool | None:
        found = told(name)
        return None if found is None else bool(found)

    busy = told("nvmlDeviceGetUtilizationRates")
    mig = told("nvmlDeviceGetMigMode")
    capability = told("nvmlDeviceGetCudaComputeCapability")
    limits = [told("nvmlDeviceGetTemperatureThreshold", kind) for kind in (MOST, SLOWDOWN)]
    return Card(
        index=index,
        name=basic.name,
        total_bytes=basic.total_bytes,
        free_bytes=basic.free_bytes,
        uuid=basic.uuid,
        processes=processes(library, told, busy_of(library, handle)),
        utilization_percent=None if busy is None else int(busy.gpu),
        temperature=told("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU),
        temperature_limit=next((limit for limit in limits if limit), None),
        power_watts=watts("nvmlDeviceGetPowerUsage"),
        power_limit_watts=watts("nvmlDeviceGetEnforcedPowerLimit"),
        power_default_watts=watts("nvmlDeviceGetPowerManagementDefaultLimit"),
        clock=told("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM),
        clock_most=told("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_SM),
        memory_clock=told("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM),
        memory_clock_most=told("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_MEM),
        throttled=throttles(told("nvmlDeviceGetCurrentClocksThrottleReasons")),
        pcie_generation=told("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_generation_most=told("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width=told("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_width_most=told("nvmlDeviceGetMaxPcieLinkWidth"),
        persistence=flag("nvmlDeviceGetPersistenceMode"),
        display=flag("nvmlDeviceGetDisplayActive"),
        mig=None if mig is None else bool(mig[0]),
        ecc_uncorrected=told("nvmlDeviceGetTotalEccErrors", 1, library.NVML_VOLATILE_ECC),
        ecc_corrected=told("nvmlDeviceGetTotalEccErrors", 0, library.NVML_VOLATILE_ECC),
        compute_capability=None if capability is None else (int(capability[0]), int(capability[1])),
    )


def throttles(reasons: int | None) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLES.items() if reasons and reasons & bit)


def busy_of(library: Any, handle: Any) -> dict[int, int] | None:
    """By pid, the most of the samples that NVML kept, a few seconds; empty where nobody worked. None where it does not
    tell: not under WSL2 and MIG, and of drivers without it."""
    try:
        samples = library.nvmlDeviceGetProcessUtilization(handle, 0)
    except library.NVMLError as error:
        # pynvml raises the success of a first call that has no sample.
        return {} if error.value in {library.NVML_ERROR_NOT_FOUND, library.NVML_SUCCESS} else None
    busy: dict[int, int] = {}
    for sample in samples:
        busy[sample.pid] = max(busy.get(sample.pid, 0), min(100, int(sample.smUtil)))
    return busy


def processes(library: Any, told: Callable[..., Any], busy: dict[int, int] | None) -> tuple[GpuProcess, ...]:
    """Everything that NVML lists on the card, the largest first."""
    kinds: dict[int, set[str]] = {}
    held: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        for process in told(f"nvmlDeviceGet{kind}RunningProcesses_v3") or ():
            kinds.setdefault(process.pid, set()).add(kind.lower())
            # Listed as both, it holds all of it each time.
            known = [size for size in (held.get(process.pid), process.usedGpuMemory) if size is not None]
            held[process.pid] = max(known, default=None)
    found = [
        GpuProcess(
            pid,
            *named(library, pid),
            held[pid],
            kind.pop() if len(kind) == 1 else "both",
            None if busy is None else busy.get(pid, 0),
        )
        for pid, kind in kinds.items()
    ]
    return tuple(sorted(found, key=lambda process: -(process.held_bytes or 0)))


def named(library: Any, pid: int) -> tuple[str, str | None]:
    """A process's name and user. NVML knows the name of one that is not to be seen from here."""
    folder = PROC / str(pid)
    if nvml.on_the_host():
        with suppress(OSError):
            return (folder / "comm").read_text().strip(), owner(folder)
    name = nvml.asked(library, lambda: library.nvmlSystemGetProcessName(pid))
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
    # A command line may follow, with whatever stands in it.
    return Path(text.split(" ", 1)[0]).name or "a program that cannot be seen from here", None


def owner(folder: Path) -> str | None:
    import pwd

    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
