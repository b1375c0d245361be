"""The GPUs by NVML, by the kernel, and by the engine's own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["fine", "lost", "mismatch", "absent", "unknown"]


@dataclass(frozen=True)
class GpuProcess:
    """Who holds memory of a card. `kind`: compute, graphics, or both. `user` None: it cannot be seen here.

    `busy_percent`: how much of the last seconds it kept the card's multiprocessors busy, at most; None where NVML does
    not tell that of processes.
    """

    pid: int
    name: str
    user: str | None
    held_bytes: int | None
    kind: str
    busy_percent: int | None = None


@dataclass(frozen=True)
class Card:
    """One card. None is what NVML does not tell. Temperatures are degrees Celsius, power is watts, clocks are MHz
    (`clock` of the multiprocessors).

    `throttled`: NVML's reasons that hold now, by their names (sw_thermal, hw_thermal, hw_power_brake, sw_power,
    hw_slowdown). `pcie_…` are now, `pcie_…_most` what card and slot can. `temperature_limit` is where the card slows
    down, `power_default_watts` the maker's limit. ECC errors are counted since the driver was loaded.
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int | None
    uuid: str | None = None
    processes: tuple[GpuProcess, ...] = ()
    utilization_percent: int | None = None
    temperature: int | None = None
    temperature_limit: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    power_default_watts: float | None = None
    clock: int | None = None
    clock_most: int | None = None
    memory_clock: int | None = None
    memory_clock_most: int | None = None
    throttled: tuple[str, ...] = ()
    pcie_generation: int | None = None
    pcie_generation_most: int | None = None
    pcie_width: int | None = None
    pcie_width_most: int | None = None
    persistence: bool | None = None
    display: bool | None = None
    mig: bool | None = None
    ecc_uncorrected: int | None = None
    ecc_corrected: int | None = None
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class DeviceNode:
    """One file such as /dev/nvidia0. `usable`: whether who runs the server may open it, None where unknown."""

    path: str
    there: bool
    mode: str = ""
    group: str | None = None
    usable: bool | None = None


@dataclass(frozen=True)
class Xid:
    """One report of the driver in the kernel's log; `code` is NVIDIA's number of it."""

    code: int
    line: str


@dataclass(frozen=True)
class GpuFacts:
    """`state` is NVML's (`unknown`: no NVML library here); `pci`: NVIDIA cards on the PCI bus, None where not told.

    `driver` is NVML's version of the driver, `library` that of the library's file, `kernel_driver` the module's.
    `engine_devices`: what `llama-server --list-devices` names, None where it was not asked or did not answer.
    `xids`: of the kernel's log since the boot, None where it may not be read. `slept_seconds`: how long this machine
    slept since its boot. `visible` is CUDA_VISIBLE_DEVICES with whose it is, None where it is not set;
    `visible_known` False: the server's environment is another user's. `user` is who runs the server, or would.
    `pids_known`: NVML's numbers of processes are the ones that are seen here, as they are not in a container.
    """

    state: State
    words: str = ""
    driver: str | None = None
    library: str | None = None
    kernel_driver: str | None = None
    cards: tuple[Card, ...] = ()
    pci: int | None = None
    nodes: tuple[DeviceNode, ...] = ()
    engine_devices: tuple[str, ...] | None = None
    xids: tuple[Xid, ...] | None = None
    slept_seconds: float = 0.0
    modules: frozenset[str] = field(default_factory=frozenset)
    visible: str | None = None
    visible_of: str = ""
    visible_known: bool = True
    user: str = ""
    pids_known: bool = True
