"""The GPU checks on facts that no machine here shows: their edges, and what they say nothing of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.checks import gpu
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.checks.facts.fit import FitFacts, ModelFit
from llmctl.core.checks.facts.gpu import Card, DeviceNode, GpuFacts, GpuProcess, Xid
from llmctl.core.checks.facts.log import LogFacts, LogLine
from llmctl.core.checks.facts.models import ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.server import Runner, ServerFacts, ServerProcess
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.checks.xid import MEANINGS, meaning
from llmctl.core.placement import Place, Proof
from llmctl.core.profile import GpuSpec, ModelSpec, Profile, Require

MIB, GIB = 1 << 20, 1 << 30
CARD = Card(0, "NVIDIA GeForce RTX 3090", 24 * GIB, 23 * GIB, uuid="GPU-3f2a7c10-0000")


def profile(require: Require = "full") -> ProfileFacts:
    return ProfileFacts(Profile("mine", (ModelSpec("m"),), gpu=GpuSpec(require)))


def resident(place: Place) -> ModelsFacts:
    one = ResidentFacts("m", "m", frozenset(), None, 4096, None, Proof("proved", place), None, None, None, ())
    return ModelsFacts("full", (one,), ())


def facts(seen: GpuFacts, require: Require = "full", **areas: Any) -> Facts:
    usual: dict[str, object] = {
        "gpu": seen,
        "profile": profile(require),
        "shell": ShellFacts("me", 1000, {}, None, False),
        "server": ServerFacts("http://127.0.0.1:11434", "default", "absent"),
        "engine": EngineFacts("/opt/ollama", "0.34.0", None, "/opt/llama-server", None, ()),
    }
    return Facts({**usual, **areas})


def outcomes(found: Facts) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in examine(gpu.CHECKS, found)}


def ids(found: Facts) -> list[str]:
    return [name for name, outcome in outcomes(found).items() if outcome.state == "found"]


def observed(found: Facts, check: str) -> str:
    return outcomes(found)[check].findings[0].observed


def test_a_machine_without_a_card_that_wants_none() -> None:
    assert ids(facts(GpuFacts("unknown", pci=0, xids=()), "none")) == []
    assert ids(facts(GpuFacts("absent", "NVML shows no GPU", driver="570.1", pci=0, xids=()), "none")) == []


def test_a_gpu_of_another_make_needs_no_driver_of_nvidias() -> None:
    nothing = GpuFacts("unknown", "no library", pci=0, xids=())
    assert ids(facts(nothing)) == ["gpu.no-driver"]
    assert ids(facts(nothing, models=resident("gpu"))) == []
    assert ids(facts(nothing, models=resident("cpu"))) == ["gpu.no-driver"]
    assert ids(facts(GpuFacts("unknown", pci=0, xids=(), engine_devices=("ROCm0",)))) == []


def test_a_driver_that_shows_no_card() -> None:
    """Without one on the bus there is none; with one it is lost."""
    none = GpuFacts("absent", "NVML shows no GPU", driver="570.1", pci=0, xids=())
    assert observed(facts(none), "gpu.no-driver") == "the driver works and shows no card"
    assert ids(facts(GpuFacts("absent", "NVML shows no GPU", driver="570.1", pci=2, xids=()))) == ["gpu.lost"]


def test_a_second_card_that_another_driver_has_is_not_lost() -> None:
    assert ids(facts(GpuFacts("fine", cards=(CARD,), pci=2, xids=()))) == []
    fallen = (Xid(79, "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus."),)
    assert ids(facts(GpuFacts("fine", cards=(CARD,), pci=2, xids=fallen))) == ["gpu.lost"]
    # It came back.
    assert ids(facts(GpuFacts("fine", cards=(CARD, CARD), pci=2, xids=fallen))) == ["gpu.xid"]


def test_a_kernel_log_that_may_not_be_read_is_unknown() -> None:
    found = outcomes(facts(GpuFacts("fine", cards=(CARD,), xids=None)))["gpu.xid"]
    assert found.state == "unknown"
    assert "sudo dmesg" in found.why


def test_every_number_of_the_catalogue_is_told_and_others_are_sent_there() -> None:
    assert {13, 31, 43, 45, 48, 61, 62, 63, 64, 69, 74, 79, 92, 94, 95, 109, 119, 120} == set(MEANINGS)
    assert "catalogue" in meaning(999).words


@pytest.mark.parametrize(
    ("library", "kernel", "differs"),
    [("570.86.10", "570.86.10", False), ("570.124.04", "570.86.10", True), (None, "570.86.10", False)],
)
def test_versions_are_compared_where_both_are_known(library: str | None, kernel: str, differs: bool) -> None:
    nodes = (DeviceNode("/dev/nvidia0", True, "0666", "root", True),)
    seen = GpuFacts("fine", driver=kernel, library=library, kernel_driver=kernel, cards=(CARD,), nodes=nodes, xids=())
    assert ids(facts(seen)) == (["gpu.driver-mismatch"] if differs else [])


def test_the_log_of_the_engine_tells_of_an_old_driver_too() -> None:
    log = LogFacts("server.log", 10, True, driver_too_old=LogLine("NVIDIA driver too old", 1))
    found = facts(GpuFacts("fine", driver="570.86.10", cards=(CARD,), xids=()), log=log)
    assert ids(found) == ["gpu.driver-too-old"]


def test_devices_that_the_servers_user_may_not_open() -> None:
    nodes = tuple(
        DeviceNode(f"/dev/{name}", True, "0660", "video", False) for name in ("nvidia0", "nvidiactl", "nvidia-uvm")
    )
    seen = GpuFacts("fine", kernel_driver="570.86.10", cards=(CARD,), nodes=nodes, xids=(), user="ollama")
    (finding,) = outcomes(facts(seen))["gpu.device-nodes"].findings
    assert finding.severity == "error"
    assert finding.remedy.commands == ("sudo usermod --append --groups video ollama",)
    assert "/dev/nvidia0: mode 0660, group video" in finding.evidence
    # In a container and under WSL2 they are others', and need not be there.
    inside = ShellFacts("me", 0, {}, "docker", False)
    assert ids(facts(seen, shell=inside)) == []


@pytest.mark.parametrize(
    ("value", "require", "severity"),
    [
        (None, "full", None),
        ("0", "full", None),
        ("0,1", "full", "warning"),
        ("1,0", "full", "error"),
        ("MIG-abc", "full", None),
        ("GPU-3f2a", "full", None),
        ("nvidia", "full", "error"),
        ("", "full", "error"),
        ("", "none", None),
        ("-1", "none", None),
        ("5", "none", "warning"),
    ],
)
def test_what_cuda_makes_of_the_variable(value: str | None, require: Require, severity: str | None) -> None:
    seen = GpuFacts("fine", cards=(CARD,), xids=(), visible=value, visible_of="this shell")
    outcome = outcomes(facts(seen, require))["gpu.visible-devices"]
    assert [outcome.severity(finding) for finding in outcome.findings] == ([severity] if severity else [])


def test_an_environment_of_another_user_is_unknown() -> None:
    seen = GpuFacts("fine", cards=(CARD,), xids=(), visible_of="the server (pid 7)", visible_known=False)
    assert outcomes(facts(seen))["gpu.visible-devices"].state == "unknown"
    assert outcomes(facts(GpuFacts("unknown", pci=0, visible_known=False), "none"))["gpu.visible-devices"].state == "ok"


@pytest.mark.parametrize(
    ("owner", "unit", "commands"),
    [
        ("llmctl", None, ("unset CUDA_VISIBLE_DEVICES", "llmctl down", "llmctl up")),
        ("foreign", "ollama.service", ("sudo systemctl edit ollama.service", "sudo systemctl restart ollama.service")),
        ("foreign", None, ("unset CUDA_VISIBLE_DEVICES", "kill 7", "ollama serve")),
    ],
)
def test_how_a_server_gets_rid_of_a_variable(owner: Any, unit: str | None, commands: tuple[str, ...]) -> None:
    running = ServerProcess(7, "me", "/opt/ollama", "S", 11434, None, {}, 1.0, unit=unit)
    server = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner=owner, pid=7, processes=(running,))
    seen = GpuFacts("fine", cards=(CARD,), xids=(), visible="9", visible_of="the server (pid 7)")
    (finding,) = outcomes(facts(seen, server=server))["gpu.visible-devices"].findings
    assert finding.remedy.commands == commands


def test_an_engine_that_was_not_asked_or_did_not_answer_is_no_finding() -> None:
    assert ids(facts(GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=None))) == []
    assert ids(facts(GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=("CUDA0",), slept_seconds=99))) == []
    assert ids(facts(GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=()))) == ["gpu.engine-sees-none"]
    slept = GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=(), slept_seconds=99)
    assert ids(facts(slept)) == ["gpu.after-suspend"]
    modules = GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=(), modules=frozenset({"nvidia"}))
    (finding,) = outcomes(facts(modules))["gpu.engine-sees-none"].findings
    assert "sudo modprobe nvidia_uvm" in finding.remedy.commands


def test_a_server_that_started_before_the_driver_was_there() -> None:
    """It looks for GPUs once; by now the engine's program sees the card."""
    line = 'msg="inference compute" id=cpu library=cpu'
    log = LogFacts("server.log", 10, True, gpus=(), gpu_lines=(line,))
    server = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="llmctl", pid=7)
    seen = GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=("CUDA0",))
    found = outcomes(facts(seen, server=server, log=log))["gpu.engine-sees-none"].findings[0]
    assert found.observed.startswith("the server found no GPU when it started")
    assert found.remedy.commands == ("llmctl down", "llmctl up")
    assert found.evidence == (line,)
    assert ids(facts(seen, "none", server=server, log=log)) == []
    assert ids(facts(seen, server=server, log=log, models=resident("gpu"))) == []
    assert ids(facts(seen, server=server, log=LogFacts("server.log", 10, True, gpus=("CUDA0",)))) == []


def test_only_others_compete_and_a_display_does_not() -> None:
    processes = (
        GpuProcess(10, "llama-server", "me", 9 * GIB, "compute"),
        GpuProcess(11, "llama-server", "me", 2 * GIB, "compute"),
        GpuProcess(12, "Xorg", "root", 300 * MIB, "graphics"),
        GpuProcess(13, "nvtop", "me", 8 * MIB, "compute"),
    )
    runners = tuple(Runner(pid, "me", parent, (), "S", None, None, "ok", 1.0) for pid, parent in ((10, 7), (11, None)))
    server = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="llmctl", pid=7, runners=runners)
    card = Card(0, "NVIDIA GeForce RTX 3090", 24 * GIB, GIB, processes=processes)
    assert ids(facts(GpuFacts("fine", cards=(card,), xids=()), server=server)) == []
    python = GpuProcess(14, "python3", "ann", None, "both")
    more = Card(0, "NVIDIA GeForce RTX 3090", 24 * GIB, GIB, processes=(*processes, python))
    found = facts(GpuFacts("fine", cards=(more,), xids=()), server=server)
    assert ids(found) == ["gpu.competing"]
    assert outcomes(found)["gpu.competing"].findings[0].evidence == ("python3 (pid 14 of ann) holds an unknown amount",)


def test_a_card_that_our_own_model_keeps_busy_is_not_contested() -> None:
    """A remote desktop computes a little on every card; in a container our own runner goes by another number."""
    desktop = GpuProcess(20, "gnome-remote-desktop", "me", 130 * MIB, "both")
    own = GpuProcess(10, "llama-server", "me", 9 * GIB, "compute")
    runner = Runner(10, "me", 7, (), "S", None, None, "ok", 1.0)
    server = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="llmctl", pid=7, runners=(runner,))

    def outcome(*processes: GpuProcess, known: bool = True) -> Outcome:
        card = Card(0, "RTX", 24 * GIB, GIB, processes=processes, utilization_percent=95)
        seen = GpuFacts("fine", cards=(card,), xids=(), pids_known=known)
        return outcomes(facts(seen, server=server))["gpu.competing"]

    for processes, severity in (((own, desktop), "info"), ((desktop,), "warning")):
        beside = outcome(*processes)
        assert [beside.severity(finding) for finding in beside.findings] == [severity]
    assert outcome(GpuProcess(4242, "llama-server", None, 9 * GIB, "compute"), known=False).state == "unknown"
    assert outcome(known=False).state == "ok"
    (finding,) = outcome(desktop).findings
    assert finding.remedy.commands == ("nvidia-smi", "ps -o pid,user,lstart,args -p 20")


def test_lanes_are_counted_while_the_card_works() -> None:
    def found(busy: int | None, generation: int, width: int) -> list[str]:
        card = replace(
            CARD,
            utilization_percent=busy,
            pcie_generation=generation,
            pcie_generation_most=4,
            pcie_width=width,
            pcie_width_most=16,
        )
        outcome = outcomes(facts(GpuFacts("fine", cards=(card,), xids=())))["gpu.pcie"]
        return [outcome.severity(finding) for finding in outcome.findings]

    assert found(0, 1, 8) == found(None, 4, 4) == found(90, 4, 16) == []
    assert found(90, 4, 8) == ["info"]
    assert found(90, 1, 8) == found(90, 4, 4) == found(90, 1, 16) == ["warning"]


def test_a_device_that_cuda_makes_when_it_starts() -> None:
    """After a boot /dev/nvidia-uvm is missing until the first program of CUDA."""
    nodes = (DeviceNode("/dev/nvidia0", True, "0666", "root", True), DeviceNode("/dev/nvidia-uvm", False))
    seen = GpuFacts("fine", kernel_driver="570.86.10", cards=(CARD,), nodes=nodes, xids=())

    def state(devices: tuple[str, ...] | None, require: Require = "full", **areas: Any) -> str:
        return outcomes(facts(replace(seen, engine_devices=devices), require, **areas))["gpu.device-nodes"].state

    assert state(("CUDA0",)) == "ok"
    assert state(()) == "found"
    assert state((), models=resident("gpu")) == "ok"
    assert (state(None), state(None, "none")) == ("unknown", "ok")
    closed = replace(seen, nodes=(replace(nodes[0], usable=False), replace(nodes[1], there=True)))
    assert ids(facts(closed)) == ["gpu.device-nodes"]
    assert ids(facts(closed, models=resident("gpu"))) == []
    # An access list decides, and nobody but that user knows how.
    listed = replace(closed, nodes=(replace(nodes[0], usable=None), closed.nodes[1]))
    assert outcomes(facts(listed))["gpu.device-nodes"].state == "unknown"


@pytest.mark.parametrize(("held", "told"), [(300 * MIB, False), (800 * MIB, True)])
def test_the_display_is_told_only_where_it_holds_what_the_model_lacks(held: int, told: bool) -> None:
    card = Card(0, "RTX", 24 * GIB, GIB, processes=(GpuProcess(12, "Xorg", "root", held, "graphics"),))
    lacking = FitFacts((ModelFit("m", "partial", needed_bytes=20 * GIB, free_bytes=20 * GIB - 500 * MIB),))
    found = facts(GpuFacts("fine", cards=(card,), xids=()), fit=lacking)
    assert ids(found) == (["gpu.display"] if told else [])
    assert ids(facts(GpuFacts("fine", cards=(card,), xids=()), fit=FitFacts())) == []


def test_what_a_card_does_not_tell_is_no_finding() -> None:
    assert ids(facts(GpuFacts("fine", cards=(Card(0, "Tesla M40", 12 * GIB, None),), xids=()))) == []


@pytest.mark.parametrize(
    ("slept", "commands"),
    [
        (0.0, ("sudo systemctl restart ollama.service", "llmctl up", "llmctl logs")),
        (
            99.0,
            (
                "sudo systemctl stop ollama.service",
                "sudo modprobe --remove nvidia_uvm",
                "sudo modprobe nvidia_uvm",
                "sudo systemctl start ollama.service",
                "llmctl up",
            ),
        ),
    ],
)
def test_a_server_of_another_unit_looks_for_its_gpus_again_by_that(slept: float, commands: tuple[str, ...]) -> None:
    running = ServerProcess(7, "ollama", "/opt/ollama", "S", 11434, None, {}, 1.0, unit="ollama.service")
    server = ServerFacts("http://127.0.0.1:11434", "default", "answers", owner="foreign", pid=7, processes=(running,))
    seen = GpuFacts("fine", cards=(CARD,), xids=(), engine_devices=(), slept_seconds=slept)
    (finding,) = outcomes(facts(seen, server=server))["gpu.after-suspend" if slept else "gpu.engine-sees-none"].findings
    assert finding.remedy.commands == commands
