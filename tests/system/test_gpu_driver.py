"""The driver's files as the kernel shows them: real files with real permissions, and the text of a real log."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.system import access, gpu_driver, kernel_log
from llmctl.system.access import Identity
from tests.parts.nvml import NvmlStandin, ScriptedGpu

GIB = 1 << 30


def test_who_may_open_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "DEV", tmp_path)
    owner, group = os.geteuid(), os.getegid()
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia0").chmod(0o660)
    (tmp_path / "nvidiactl").chmod(0o666)
    stranger, member = Identity(owner + 7, frozenset({group + 7})), Identity(owner + 7, frozenset({group}))
    found = {Path(node.path).name: node for node in gpu_driver.nodes(1, stranger)}
    assert (found["nvidia0"].mode, found["nvidia0"].usable) == ("0660", False)
    assert found["nvidiactl"].usable
    assert not found["nvidia-uvm"].there
    assert gpu_driver.nodes(1, member)[0].usable
    assert gpu_driver.nodes(1, Identity(0, frozenset()))[0].usable
    # An access list says more than the mode, and only that user's own try would tell what.
    monkeypatch.setattr(access, "has_acl", lambda _: True)
    assert gpu_driver.nodes(1, stranger)[0].usable is None


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Thu Jan 23 12:00:00 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (root@build)",
    ],
)
def test_the_modules_version(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "PROC", tmp_path)
    assert gpu_driver.module_version() is None
    folder = tmp_path / "driver" / "nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    assert gpu_driver.module_version() == "570.86.10"


def test_reports_in_the_ring_and_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVRM: Xid (PCI:0000:01:00): 79, pid=7, name=x, GPU has fallen off the bus."
    ring = tmp_path / "kmsg"
    ring.write_text(f"6,1,1,-;NVRM: loading NVIDIA UNIX\n4,2,2,-;{line}\n SUBSYSTEM=pci\n")
    monkeypatch.setattr(kernel_log, "KMSG", ring)
    assert [(found.code, found.line) for found in kernel_log.xids({}) or ()] == [(79, line)]
    # Who may not read the ring asks the journal, which is here a program that says the same.
    monkeypatch.setattr(kernel_log, "KMSG", tmp_path / "nowhere")
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"kernel: {line}\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [(found.code, found.line) for found in kernel_log.xids(os.environ) or ()] == [(79, line)]
    program.write_text("#!/bin/sh\necho 'Hint: you may not see messages of the system' >&2\nexit 1\n")
    assert kernel_log.xids(os.environ) is None


def test_the_real_ring_is_read_to_its_end() -> None:
    if not os.access(kernel_log.KMSG, os.R_OK):
        pytest.skip("this user may not read the kernel's log")
    assert kernel_log.from_ring() is not None


@pytest.mark.real("nvml")
def test_everything_that_nvml_tells_of_a_card(nvml_standin: NvmlStandin) -> None:
    def look() -> Any:
        program = "import dataclasses, json; from llmctl.system import gpu_detail; "
        program += "print(json.dumps(dataclasses.asdict(gpu_detail.look())))"
        environ = os.environ | nvml_standin.environ
        done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    own = os.getpid()
    nvml_standin.set(
        ScriptedGpu(
            compute=[(own, GIB), (1 << 22, 5)],
            graphics=[(own, GIB)],
            throttle=0x40 | 0x4 | 0x1,
            power=(210.5, 300.0, 350.0),
            clock=(900, 2100, 4750, 9501),
            busy={own: 60},
            utilization=(88, 40),
            mig=(1, 0),
            ecc=(9, 2),
            display=1,
            persistence=0,
            pcie=(1, 8, 4, 16),
        ),
        names={1 << 22: "/usr/bin/blender --python secret"},
    )
    seen = look()
    assert (seen["state"], seen["driver"], seen["library"]) == ("fine", "570.86.10", None)
    (card,) = seen["cards"]
    first, second = card.pop("processes")
    assert (first["pid"], first["held_bytes"], first["kind"]) == (own, GIB, "both")
    # A process that is not to be seen goes by NVML's name, without what its command line holds.
    assert (second["name"], second["user"]) == ("blender", None)
    # NVML has samples only of those that worked.
    assert (first["busy_percent"], second["busy_percent"]) == (60, 0)
    expected = {
        "throttled": ["sw_power", "hw_thermal"],
        "power_watts": 210.5,
        "power_limit_watts": 300.0,
        "power_default_watts": 350.0,
        "temperature": 45,
        "temperature_limit": 93,
        "clock": 900,
        "clock_most": 2100,
        "memory_clock": 4750,
        "memory_clock_most": 9501,
        "utilization_percent": 88,
        "mig": True,
        "ecc_corrected": 9,
        "ecc_uncorrected": 2,
        "display": True,
        "persistence": False,
        "pcie_generation": 1,
        "pcie_width": 8,
        "pcie_generation_most": 4,
        "pcie_width_most": 16,
        "compute_capability": [8, 6],
    }
    assert {name: card[name] for name in expected} == expected
    # Where nobody worked there is no sample; where NVML does not tell, nobody knows.
    for busy, told in (({}, 0), (None, None)):
        nvml_standin.set(ScriptedGpu(compute=[(own, GIB)], busy=busy))
        assert look()["cards"][0]["processes"][0]["busy_percent"] == told
    bare = ScriptedGpu(
        **dict.fromkeys(("limits", "power", "clock", "utilization", "persistence", "display", "capability", "pcie"))
    )
    nvml_standin.set(dataclasses.replace(bare, throttle=None, temperature=None, uuid=None))
    (card,) = look()["cards"]
    known = {"index", "name", "total_bytes", "free_bytes"}
    assert {name for name, value in card.items() if value not in (None, [])} == known
