"""The GPUs: the real pynvml over a scripted driver, and what no machine here can show told to llmctl at system/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Patient, ids
from tests.doctor.proving import complete, provokes
from tests.parts.nvml import NvmlStandin, ScriptedGpu

pytestmark = pytest.mark.real("ollama", "model", "nvml")

MIB, GIB = 1 << 20, 1 << 30
RUN = "\nimport sys\nfrom llmctl.__main__ import main\nsys.exit(main())\n"
VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Jan 23 12:00:00 UTC 2025\nGCC version: gcc 12\n"

Driven = tuple[Patient, NvmlStandin]


def require_gpu(patient: Patient) -> None:
    path = Path(patient.profile)
    path.write_text(path.read_text().replace("require: none", "require: full"))


def gpu(patient: Patient, *more: str) -> dict[str, Any]:
    return patient.report("gpu", *more, "--profile", patient.profile)


def found(patient: Patient, check: str) -> dict[str, Any]:
    return patient.finding(check, "gpu", "--profile", patient.profile)


def told(patient: Patient, prelude: str) -> list[dict[str, Any]]:
    """The findings about the GPU of a doctor that runs after `prelude`."""
    done = subprocess.run(
        [sys.executable, "-c", prelude + RUN, "doctor", "gpu", "--json", "--profile", patient.profile],
        env={**os.environ, **patient.cli.environ, **patient.environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    for finding in findings:
        complete(finding)
    return findings


def kernel(folder: Path, *, version: str | None = None, log: str = "", nodes: tuple[str, ...] = ()) -> str:
    """A prelude with the driver's files below `folder`: /proc/driver/nvidia/version, /dev and the kernel's log."""
    (folder / "dev").mkdir()
    (folder / "proc" / "driver" / "nvidia").mkdir(parents=True)
    if version:
        (folder / "proc" / "driver" / "nvidia" / "version").write_text(VERSION.format(version))
    for name in nodes:
        (folder / "dev" / name).touch(mode=0o666)
    (folder / "kmsg").write_text(log)
    return (
        "from pathlib import Path\n"
        "from llmctl.system import gpu_driver, kernel_log\n"
        "from llmctl.workflows.gather import shell\n"
        "shell.container = lambda: None\n"
        f"gpu_driver.PROC = Path({str(folder / 'proc')!r})\n"
        f"gpu_driver.DEV = Path({str(folder / 'dev')!r})\n"
        f"kernel_log.KMSG = Path({str(folder / 'kmsg')!r})\n"
    )


@pytest.mark.parametrize("cards", [1, 2])
def test_idle_cards_are_nothing_to_tell_of(with_driver: Driven, cards: int) -> None:
    patient, standin = with_driver
    standin.set(*(ScriptedGpu(uuid=f"GPU-{number}") for number in range(cards)))
    report = gpu(patient)
    assert report["findings"] == report["skipped"] == []


@provokes("gpu.no-driver")
@pytest.mark.parametrize("required", [True, False])
def test_a_driver_that_is_not_loaded(with_driver: Driven, required: bool) -> None:
    patient, standin = with_driver
    standin.set(errors={"nvmlInitWithFlags": "DRIVER_NOT_LOADED"})
    if not required:
        # A machine without a card, and nobody who wants one.
        assert gpu(patient)["findings"] == []
        return
    require_gpu(patient)
    finding = found(patient, "gpu.no-driver")
    assert finding["severity"] == "error"
    assert "Driver Not Loaded" in finding["observed"]
    assert ids(gpu(patient)) == ["gpu.no-driver"]


@provokes("gpu.no-driver", injected="no NVIDIA card and no driver are in this machine")
def test_a_card_without_any_driver(patient: Patient, tmp_path: Path) -> None:
    card = tmp_path / "bus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030000\n")
    prelude = (
        "from pathlib import Path\nfrom llmctl.system import gpu_driver\nfrom llmctl.workflows.gather import shell\n"
        f"shell.container = lambda: None\ngpu_driver.PCI = Path({str(card.parent)!r})"
    )
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    (finding,) = told(patient, prelude)
    assert (finding["id"], finding["severity"]) == ("gpu.no-driver", "info")
    assert "NVIDIA cards on the PCI bus: 1" in finding["observed"]
    # An audio function of the same card is none.
    (card / "class").write_text("0x040300\n")
    assert told(patient, prelude) == []


@provokes("gpu.container")
def test_a_container_that_was_promised_a_gpu(patient: Patient) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    patient.environ["NVIDIA_VISIBLE_DEVICES"] = "all"
    finding = found(patient, "gpu.container")
    assert "NVIDIA_VISIBLE_DEVICES asks for all" in finding["observed"]
    assert finding["severity"] == "info"
    require_gpu(patient)
    # The missing driver is what is explained by it.
    assert ids(gpu(patient)) == ["gpu.container"]
    patient.environ["NVIDIA_VISIBLE_DEVICES"] = "void"
    assert "gpu.container" not in ids(gpu(patient)) or "asks for" not in found(patient, "gpu.container")["observed"]


@provokes("gpu.driver-mismatch")
def test_a_library_of_another_version(with_driver: Driven, tmp_path: Path) -> None:
    patient, standin = with_driver
    require_gpu(patient)
    standin.set(ScriptedGpu(), errors={"nvmlInitWithFlags": "LIB_RM_VERSION_MISMATCH"})
    finding = found(patient, "gpu.driver-mismatch")
    assert finding["severity"] == "error"
    assert finding["remedy"]["commands"][-1] == "sudo reboot"
    # The kernel's module tells its version.
    (finding,) = told(patient, kernel(tmp_path, version="570.86.10"))
    assert "/proc/driver/nvidia/version: 570.86.10" in finding["evidence"]


@provokes("gpu.lost")
def test_a_lost_card(with_driver: Driven, tmp_path: Path) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(), ScriptedGpu(uuid="GPU-b", errors={"nvmlDeviceGetMemoryInfo": "GPU_IS_LOST"}))
    finding = found(patient, "gpu.lost")
    assert "GPU 1" in finding["observed"]
    assert ids(gpu(patient)) == ["gpu.lost"]
    # The kernel says why, and is not told a second time.
    log = "4,1,2,-;NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
    (finding,) = told(patient, kernel(tmp_path, log=log))
    assert finding["id"] == "gpu.lost"
    assert "power, slot, riser or heat" in finding["evidence"][0]


@provokes("gpu.driver-too-old")
def test_a_driver_that_is_too_old_for_the_engine_or_for_the_card(with_driver: Driven) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(), driver="535.183.01")
    finding = found(patient, "gpu.driver-too-old")
    assert (finding["observed"], finding["expected"]) == ("driver 535.183.01", "550 or newer")
    standin.set(ScriptedGpu(name="NVIDIA GeForce GTX 1080", capability=(6, 1)), driver="560.35.03")
    finding = found(patient, "gpu.driver-too-old")
    assert finding["expected"] == "570 or newer for NVIDIA GeForce GTX 1080 (compute capability 6.1)"
    standin.set(ScriptedGpu(), driver="550.54.14")
    assert gpu(patient)["findings"] == []


@provokes("gpu.xid", injected="a report in the real kernel's log would be seen by everything on this machine")
def test_reports_of_the_driver(with_driver: Driven, tmp_path: Path) -> None:
    patient, _ = with_driver
    log = (
        "6,900,1,-;usb 1-1: new device\n SUBSYSTEM=usb\n"
        "4,901,2,-;NVRM: Xid (PCI:0000:01:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault\n"
        "4,902,3,-;NVRM: Xid (PCI:0000:01:00): 31, pid=4243, name=python3, Ch 00000009, intr 00000000. MMU Fault\n"
        "4,903,4,-;NVRM: Xid (PCI:0000:01:00): 119, pid=1, name=nvidia-smi, Timeout waiting for RPC from GSP\n"
    )
    first, second = told(patient, kernel(tmp_path, log=log))
    assert (first["id"], first["subject"], first["severity"]) == ("gpu.xid", "Xid 119", "warning")
    assert (second["subject"], second["severity"]) == ("Xid 31", "info")
    assert second["observed"].startswith("2 since the boot: a page fault")
    assert "pid=4243" in second["evidence"][0]


@provokes("gpu.device-nodes", injected="no NVIDIA card and no driver are in this machine")
def test_devices_that_are_missing(with_driver: Driven, tmp_path: Path) -> None:
    patient, _ = with_driver
    require_gpu(patient)
    prelude = kernel(tmp_path, version="570.86.10", nodes=("nvidia0", "nvidiactl"))
    finding = next(one for one in told(patient, prelude) if one["id"] == "gpu.device-nodes")
    assert finding["severity"] == "error"
    assert "nvidia-uvm is missing" in finding["observed"]
    (tmp_path / "dev" / "nvidia-uvm").touch()
    assert "gpu.device-nodes" not in [one["id"] for one in told(patient, prelude)]


@provokes("gpu.visible-devices")
@pytest.mark.parametrize(
    ("value", "wrong"),
    [("7", "names 7"), ("GPU-ffff", "names GPU-ffff"), ("0,3", "names 3"), ("-1", "hides"), ("", "hides")],
)
def test_a_variable_that_names_no_card(with_driver: Driven, value: str, wrong: str) -> None:
    patient, _ = with_driver
    require_gpu(patient)
    patient.environ["CUDA_VISIBLE_DEVICES"] = value
    finding = found(patient, "gpu.visible-devices")
    assert wrong in finding["observed"]
    assert finding["subject"] == "this shell"
    # One card of two is left: the model may lie there.
    assert finding["severity"] == ("warning" if value == "0,3" else "error")
    assert "unset CUDA_VISIBLE_DEVICES" in finding["remedy"]["commands"]


@pytest.mark.parametrize("value", ["0", "GPU-3f2a7c10", "GPU-3f2a7c10-0000-4000-8000-000000000000"])
def test_a_variable_that_names_the_card_is_fine(with_driver: Driven, value: str) -> None:
    patient, _ = with_driver
    patient.environ["CUDA_VISIBLE_DEVICES"] = value
    assert gpu(patient)["findings"] == []


@provokes("gpu.engine-sees-none")
def test_an_engine_without_cuda_beside_a_card(with_driver: Driven) -> None:
    """The real llama-server of a build for the CPU names no device."""
    patient, _ = with_driver
    require_gpu(patient)
    finding = found(patient, "gpu.engine-sees-none")
    assert "llama-server --list-devices names no GPU" in finding["observed"]
    assert "NVIDIA GeForce RTX 3090" in finding["observed"]


@provokes("gpu.after-suspend", injected="a machine that runs tests cannot be put to sleep")
def test_a_card_that_did_not_come_back_from_sleep(with_driver: Driven) -> None:
    patient, _ = with_driver
    require_gpu(patient)
    (finding,) = told(patient, "from llmctl.system import clocks\nclocks.slept_seconds = lambda: 3600.0")
    assert finding["id"] == "gpu.after-suspend"
    assert "slept 3,600 s" in finding["observed"]
    assert "sudo modprobe nvidia_uvm" in finding["remedy"]["commands"]


@provokes("gpu.throttled")
def test_a_card_that_slows_down(with_driver: Driven) -> None:
    patient, standin = with_driver
    # nvmlClocksEventReasonHwThermalSlowdown
    standin.set(ScriptedGpu(temperature=96, throttle=0x40, clock=(600, 2100)))
    finding = found(patient, "gpu.throttled")
    assert finding["evidence"] == ["96 °C (slows down at 93 °C)", "30 W (limit 350 W)", "600 MHz (of 2100 MHz)"]
    # Full work runs into the maker's limit; one that was lowered is told.
    standin.set(ScriptedGpu(power=(349.0, 350.0, 350.0), throttle=0x4))
    assert gpu(patient)["findings"] == []
    standin.set(ScriptedGpu(power=(200.0, 200.0, 350.0), throttle=0x4))
    finding = found(patient, "gpu.throttled")
    assert finding["severity"] == "info"
    assert finding["remedy"]["commands"] == ["sudo nvidia-smi --id=0 --power-limit=350"]


@provokes("gpu.pcie")
def test_a_link_below_what_it_can_be(with_driver: Driven) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(pcie=(4, 4, 4, 16), utilization=(90, 40)))
    assert "PCIe 4 x4" in found(patient, "gpu.pcie")["observed"]
    # An idle card sleeps in the first generation and may let go of lanes; a busy one does not.
    standin.set(ScriptedGpu(pcie=(1, 8, 4, 16)))
    assert gpu(patient)["findings"] == []
    standin.set(ScriptedGpu(pcie=(1, 16, 4, 16), utilization=(90, 40)))
    assert "while the card is 90 % busy" in found(patient, "gpu.pcie")["observed"]


@provokes("gpu.ecc")
def test_memory_with_errors(with_driver: Driven) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(name="NVIDIA RTX A6000", ecc=(12, 3)))
    assert found(patient, "gpu.ecc")["observed"].startswith("3 uncorrected memory errors")
    standin.set(ScriptedGpu(name="NVIDIA RTX A6000", ecc=(12, 0)))
    assert gpu(patient)["findings"] == []


@provokes("gpu.mig")
def test_a_card_in_slices(with_driver: Driven) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(name="NVIDIA A100-SXM4-80GB", mig=(1, 1)))
    assert found(patient, "gpu.mig")["subject"] == "GPU 0: NVIDIA A100-SXM4-80GB"
    standin.set(ScriptedGpu(name="NVIDIA A100-SXM4-80GB", mig=(0, 0)))
    assert gpu(patient)["findings"] == []


@provokes("gpu.competing")
def test_others_who_compute_on_the_card(with_driver: Driven) -> None:
    patient, standin = with_driver
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            standin.set(ScriptedGpu(compute=[(other.pid, 6 * GIB)], graphics=[(1, 300 * MIB)], used_bytes=7 * GIB))
            finding = found(patient, "gpu.competing")
            assert finding["severity"] == "info"
            assert finding["evidence"][0].startswith(f"sleep (pid {other.pid} of ")
            standin.set(ScriptedGpu(compute=[(other.pid, 6 * GIB)], used_bytes=7 * GIB, utilization=(97, 50)))
            assert found(patient, "gpu.competing")["severity"] == "warning"
        finally:
            other.kill()


@provokes("gpu.persistence")
def test_a_driver_that_lets_go_of_an_idle_card(with_driver: Driven) -> None:
    patient, standin = with_driver
    standin.set(ScriptedGpu(persistence=0))
    assert gpu(patient)["findings"] == []
    require_gpu(patient)
    assert found(patient, "gpu.persistence")["severity"] == "info"
    standin.set(ScriptedGpu(persistence=0, display=1))
    assert "gpu.persistence" not in ids(gpu(patient))
