"""The GPU checks in a container, under WSL2, and where the profile wants no GPU: whose driver it is, and what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.checks.facts.gpu import Card, GpuFacts, Xid
from llmctl.core.checks.facts.log import LogFacts, LogLine
from llmctl.core.checks.facts.shell import ShellFacts
from tests.core.checks.test_gpu import CARD, facts, ids, outcomes, resident

HOST = ShellFacts("me", 1000, {}, None, False)
DOCKER = replace(HOST, container="docker")
WSL = replace(HOST, wsl=True)
# What a container without --gpus shows on a host with a card: the host's module and bus, and no library.
BARE = GpuFacts("unknown", "no library", kernel_driver="470.57.02", pci=2, xids=())


def test_a_container_without_a_gpu_on_a_host_with_one() -> None:
    assert ids(facts(BARE, "none", shell=DOCKER)) == []
    found = outcomes(facts(BARE, shell=DOCKER))
    assert [name for name, outcome in found.items() if outcome.state == "found"] == ["gpu.container"]
    assert found["gpu.container"].findings[0].severity == "error"
    assert ids(facts(replace(BARE, kernel_driver=None), shell=DOCKER)) == ["gpu.container"]
    # Outside the module that is loaded and its missing library are this system's own.
    assert ids(facts(BARE)) == ["gpu.no-driver"]


def test_a_container_that_has_some_of_the_hosts_cards() -> None:
    fallen = (Xid(79, "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus."),)
    seen = GpuFacts("fine", cards=(CARD,), pci=2, xids=fallen)
    assert "gpu.lost" not in ids(facts(seen, shell=DOCKER))
    none = GpuFacts("absent", "NVML shows no GPU", driver="570.1", pci=2, xids=())
    assert ids(facts(none, "none", shell=DOCKER)) == []
    (finding,) = outcomes(facts(none, shell=DOCKER))["gpu.no-driver"].findings
    assert not any("modprobe" in command for command in finding.remedy.commands)


@pytest.mark.parametrize(
    ("seen", "check"),
    [
        (GpuFacts("unknown", "no library", xids=()), "gpu.no-driver"),
        (GpuFacts("mismatch", "NVML: mismatch", xids=()), "gpu.driver-mismatch"),
        (GpuFacts("fine", driver="535.1", cards=(CARD,), xids=()), "gpu.driver-too-old"),
        (GpuFacts("lost", "GPU 0: lost", driver="570.1", cards=(CARD,), xids=()), "gpu.lost"),
        (GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=(), slept_seconds=99), "gpu.after-suspend"),
    ],
)
def test_the_driver_of_wsl_is_the_one_of_windows(seen: GpuFacts, check: str) -> None:
    (finding,) = outcomes(facts(seen, shell=WSL))[check].findings
    assert "wsl.exe --shutdown" in finding.remedy.commands
    assert "distribution" not in finding.remedy.text
    assert not any("modprobe" in command or "reboot" in command for command in finding.remedy.commands)
    (finding,) = outcomes(facts(seen, shell=HOST))[check].findings
    assert not any(command.startswith("wsl") for command in finding.remedy.commands)


def test_a_card_that_nobody_wants_may_do_without_the_driver() -> None:
    """Another driver has it, or a virtual machine."""
    one = replace(BARE, pci=1, kernel_driver=None)
    (finding,) = outcomes(facts(one, "none"))["gpu.no-driver"].findings
    assert finding.severity == "info"
    (finding,) = outcomes(facts(one))["gpu.no-driver"].findings
    assert finding.severity == "error"


def test_an_old_card_beside_one_that_serves_is_no_fault_of_the_driver() -> None:
    """The engine leaves out the card of the display, and says so."""
    seen = GpuFacts("fine", driver="570.86.10", cards=(CARD, Card(1, "GeForce GT 710", 1 << 30, None)), xids=())
    log = LogFacts("server.log", 10, True, device_skipped=LogLine("skipping CUDA device 1", 1))
    assert ids(facts(seen, log=log)) == ["gpu.driver-too-old"]
    assert ids(facts(seen, log=replace(log, gpus=()))) == ["gpu.driver-too-old"]
    assert ids(facts(seen, log=replace(log, gpus=("CUDA0 RTX 3090",)))) == []
    assert ids(facts(seen, log=log, models=resident("gpu"))) == []


def test_an_error_of_the_cards_memory_is_no_programs_fault() -> None:
    for code, severity in ((94, "warning"), (31, "info")):
        seen = GpuFacts("fine", cards=(CARD,), xids=(Xid(code, f"NVRM: Xid (PCI:0000:01:00): {code}"),))
        (finding,) = outcomes(facts(seen))["gpu.xid"].findings
        assert finding.severity == severity
