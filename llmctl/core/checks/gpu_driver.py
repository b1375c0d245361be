"""Whether the driver works: it is there, new enough, one version, and has not lost a card."""

from __future__ import annotations

from collections import Counter

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.gpu import Xid
from llmctl.core.checks.finding import Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import unsaid_at_start
from llmctl.core.checks.wanted import gpu_required, on_gpu, severity
from llmctl.core.checks.xid import FALLEN_OFF_THE_BUS, meaning

LEAST_DRIVER, LEAST_FOR_OLD_CARDS = 550, 570
OLD_CARDS = ((5, 0), (6, 2))
CONTAINER_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
# WSL2 has no reboot of its own, and its driver is the one of Windows (NVIDIA, CUDA on WSL User Guide).
WSL_RESTART = "wsl.exe --shutdown"
HAND_IN = Remedy(
    "set the toolkit up on the host, and start the container with --gpus all",
    ("sudo nvidia-ctk runtime configure --runtime=docker", "sudo systemctl restart docker"),
)
LAST = 5


def container(facts: Facts) -> Judgement:
    gpu, shell = facts.gpu, facts.shell
    inside = shell.container is not None
    wished = shell.environ.get(CONTAINER_VARIABLE)
    asked = wished not in {None, "", "void", "none"}
    if gpu.state != "unknown" or any(node.there for node in gpu.nodes):
        return None
    # Inside, /proc shows the module of the host, whether the container may use it or not.
    if not inside and gpu.kernel_driver is not None:
        return None
    if not asked and not (inside and gpu_required(facts)):
        return None
    if on_gpu(facts) or gpu.engine_devices:
        return None
    return Finding(
        "no driver library and no device of NVIDIA's is in this container"
        + (f", though {CONTAINER_VARIABLE} asks for {wished}" if asked else ""),
        "the host's driver, handed in by NVIDIA's container toolkit",
        HAND_IN,
        subject=shell.container or "container",
        # Images of Ollama's and NVIDIA's set the variable whether anybody asks for a GPU or not.
        severity="error" if gpu_required(facts) else "info",
    )


def cards_on_the_bus(facts: Facts) -> int:
    """Those that this system may use: inside a container the bus is the host's, and says nothing of it."""
    return 0 if facts.shell.container is not None else facts.gpu.pci or 0


def no_driver(facts: Facts) -> Judgement:
    gpu = facts.gpu
    cards = cards_on_the_bus(facts)
    if gpu.state == "absent":
        loaded = gpu.driver is not None
        if loaded and cards:
            # The driver runs and does not see them: gpu.lost.
            return None
        if not cards and not gpu_required(facts):
            return None
        observed = "the driver works and shows no card" if loaded else gpu.words
    elif gpu.state == "unknown":
        wanted = gpu_required(facts) and not on_gpu(facts) and not gpu.engine_devices
        if not cards and not wanted:
            return None
        observed = gpu.words + (f"; NVIDIA cards on the PCI bus: {cards}" if cards else "; the profile requires a GPU")
    else:
        return None
    return Finding(
        observed,
        f"NVIDIA's driver {LEAST_DRIVER} or newer, loaded",
        install_driver(facts),
        tuple(sorted(f"kernel module {name} is loaded" for name in gpu.modules)),
        # Whoever wants no GPU may do without the driver on purpose: nouveau, a card that a virtual machine has.
        severity="error" if gpu_required(facts) else "info",
    )


def install_driver(facts: Facts) -> Remedy:
    if facts.shell.container is not None:
        return HAND_IN
    if facts.shell.wsl:
        return Remedy(
            "install NVIDIA's driver on Windows, which WSL2 takes it from, and none here; without a GPU take the "
            "profile `cpu`",
            (WSL_RESTART, "nvidia-smi", "llmctl init --dry-run"),
        )
    return Remedy(
        "install the driver of your distribution and load it; without a GPU take the profile `cpu`",
        ("sudo modprobe nvidia", "nvidia-smi", "llmctl init --dry-run"),
    )


def mismatch(facts: Facts) -> Judgement:
    gpu = facts.gpu
    version = gpu.library
    differs = version is not None and gpu.kernel_driver is not None and version != gpu.kernel_driver
    if gpu.state != "mismatch" and not differs:
        return None
    evidence = [gpu.words] if gpu.words else []
    if gpu.kernel_driver:
        evidence.append(f"/proc/driver/nvidia/version: {gpu.kernel_driver}")
    if version:
        evidence.append(f"libnvidia-ml.so.1: {version}")
    return Finding(
        "the driver's library and its kernel module are of different versions: no new program gets the GPU",
        "one version of both",
        one_version(facts),
        tuple(evidence),
        severity=severity(facts),
    )


def one_version(facts: Facts) -> Remedy:
    if facts.shell.wsl:
        return Remedy(
            "WSL2 takes the driver from Windows: remove a driver that was installed here, and start WSL anew",
            (WSL_RESTART, "nvidia-smi"),
        )
    if facts.shell.container is not None:
        return Remedy(
            "the library in this container is not the host's: make the container anew, and reboot the host if it is "
            "still so",
            ("nvidia-smi", "sudo reboot"),
        )
    return Remedy(
        "an upgrade has changed the files while the old module was loaded: reboot, or end all that uses the GPU and "
        "load the modules anew",
        ("sudo reboot",),
    )


def too_old(facts: Facts) -> Judgement:
    gpu = facts.gpu
    version = gpu.driver or (None if facts.shell.container is not None else gpu.kernel_driver)
    if version is None or not version.partition(".")[0].isdigit():
        return log_says_too_old(facts)
    major = int(version.partition(".")[0])
    old = [
        card
        for card in gpu.cards
        if card.compute_capability and OLD_CARDS[0] <= card.compute_capability <= OLD_CARDS[1]
    ]
    least = LEAST_FOR_OLD_CARDS if old else LEAST_DRIVER
    if major >= least:
        return log_says_too_old(facts)
    why = (
        f" for {old[0].name} (compute capability {old[0].compute_capability[0]}.{old[0].compute_capability[1]})"
        if (old and old[0].compute_capability)
        else ""
    )
    return Finding(f"driver {version}", f"{least} or newer{why}", upgrade_driver(facts), severity=severity(facts))


def unused(facts: Facts) -> bool:
    """Whether a server runs beside cards that the profile requires, and no model is proved on one."""
    seen = facts.gpu.state == "fine" and bool(facts.gpu.cards)
    return seen and gpu_required(facts) and facts.server.answers and not on_gpu(facts)


def log_says_too_old(facts: Facts) -> Judgement:
    try:
        log = facts.log
    except NotGathered:
        if unused(facts):
            raise
        return None
    # Beside a card that serves, the one that was left out is an old one of the display.
    serves = bool(log.gpus) or on_gpu(facts)
    line = log.driver_too_old or (None if serves else log.device_skipped)
    if line is None:
        return unsaid_at_start(log) if unused(facts) and not serves else None
    return Finding(
        "the engine's log says that driver or card are too old for it",
        f"driver {LEAST_DRIVER} or newer ({LEAST_FOR_OLD_CARDS} for compute capability 5.0 to 6.2)",
        upgrade_driver(facts),
        (line.text,),
        severity=severity(facts),
    )


def upgrade_driver(facts: Facts) -> Remedy:
    if facts.shell.wsl:
        return Remedy(
            "install a newer driver on Windows, which WSL2 takes it from, and none here", ("nvidia-smi", WSL_RESTART)
        )
    return Remedy("install a newer driver from your distribution, and reboot", ("nvidia-smi", "sudo reboot"))


def lost(facts: Facts) -> Judgement:
    gpu = facts.gpu
    fallen = [xid for xid in gpu.xids or () if xid.code == FALLEN_OFF_THE_BUS]
    cards = cards_on_the_bus(facts)
    if gpu.state == "lost":
        observed = gpu.words
    elif gpu.state == "absent" and gpu.driver is not None and cards:
        observed = f"the driver shows none of the {cards} cards on the PCI bus"
    elif gpu.state == "fine" and fallen and cards > len(gpu.cards):
        observed = f"the driver shows {len(gpu.cards)} of {cards} cards, and one has fallen off the bus"
    else:
        return None
    return Finding(
        observed,
        "every card answers",
        Remedy(
            "a lost GPU comes back with a reboot; where it happens again, look at power, slot, riser and heat",
            ("sudo dmesg --level=err,warn", WSL_RESTART if facts.shell.wsl else "sudo reboot"),
        ),
        tuple(f"{xid.line} ({meaning(xid.code).words})" for xid in (gpu.xids or ())[-LAST:]),
        severity=severity(facts),
    )


def xid(facts: Facts) -> Judgement:
    gpu = facts.gpu
    if gpu.xids is None:
        return Unknown("this user may not read the kernel's log (sudo dmesg)")
    counted = Counter(found.code for found in gpu.xids)
    return tuple(of_code(code, times, gpu.xids) for code, times in sorted(counted.items()))


def of_code(code: int, times: int, every: tuple[Xid, ...]) -> Finding:
    last = [found.line for found in every if found.code == code][-1]
    known = meaning(code)
    text = (
        "look at the program that the line names; where it is the engine, load the model anew"
        if known.program
        else "end what uses the card and reset it, or reboot; where it comes again, the card or its slot is faulty"
    )
    commands = ("sudo dmesg --level=err,warn", "nvidia-smi") if known.program else ("nvidia-smi", "sudo reboot")
    return Finding(
        f"{times} since the boot: {known.words}",
        "no report of the driver",
        Remedy(text, commands),
        (last,),
        f"Xid {code}",
        "info" if known.program else "warning",
    )


def device_nodes(facts: Facts) -> Judgement:
    gpu = facts.gpu
    if gpu.kernel_driver is None or facts.shell.wsl or facts.shell.container is not None:
        return None
    if on_gpu(facts):
        return None
    missing = [node.path for node in gpu.nodes if not node.there]
    if missing and not gpu.engine_devices:
        if gpu.engine_devices is None and gpu.state == "fine":
            # The first program that starts CUDA makes them, and since the boot there was none.
            return Unknown(f"{', '.join(missing)}: CUDA makes them when it starts") if gpu_required(facts) else None
        return Finding(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: CUDA cannot open the card",
            "/dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm",
            Remedy("let the driver make them", ("sudo modprobe nvidia_uvm", "sudo nvidia-modprobe -u -c=0")),
            tuple(sorted(f"kernel module {name} is loaded" for name in gpu.modules)),
            severity=severity(facts),
        )
    closed = [node for node in gpu.nodes if node.usable is False]
    if not closed:
        unjudged = [node.path for node in gpu.nodes if node.there and node.usable is None]
        if unjudged and gpu_required(facts):
            return Unknown(f"whether {gpu.user} may open {', '.join(unjudged)} only that user's own try would tell")
        return None
    first = closed[0]
    groups = sorted({node.group for node in closed if node.group and node.group != "root"})
    commands = [f"sudo usermod --append --groups {group} {gpu.user}" for group in groups]
    return Finding(
        f"{gpu.user}, who runs the server, may not open {', '.join(node.path for node in closed)}",
        f"mode 0666, or {gpu.user} in the group of the files",
        Remedy(
            "put that user into the group and start the server anew" if groups else "let everybody open the devices",
            tuple(commands) or tuple(f"sudo chmod 0666 {node.path}" for node in closed),
        ),
        tuple(f"{node.path}: mode {node.mode}, group {node.group}" for node in closed),
        first.path,
        severity(facts),
    )
