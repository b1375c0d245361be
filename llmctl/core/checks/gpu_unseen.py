"""Whether the engine sees the cards that the driver shows."""

from __future__ import annotations

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.gpu import Card
from llmctl.core.checks.finding import Finding, Judgement, Remedy
from llmctl.core.checks.gpu_driver import WSL_RESTART, unused
from llmctl.core.checks.logged import unsaid_at_start
from llmctl.core.checks.wanted import anew_without, gpu_required, restarted, severity

VARIABLE = "CUDA_VISIBLE_DEVICES"
# Two clocks are read one after the other.
SLEPT_SECONDS = 1.0


def visible_devices(facts: Facts) -> Judgement:
    gpu = facts.gpu
    if gpu.state != "fine" or not gpu.cards:
        return None
    value = gpu.visible if gpu.visible_known else logged(facts)
    if value is None:
        return None
    wanted = [part.strip() for part in value.split(",")] if value.strip() else []
    known = [names(part, gpu.cards) for part in wanted]
    # CUDA takes the entries up to the first that names no card (CUDA C Programming Guide, environment variables).
    shown = known.index(False) if False in known else len(known)
    hides = wanted in ([], ["-1"])
    if shown == len(wanted) and not hides:
        return None
    if hides and not gpu_required(facts):
        # Whoever wants no GPU may hide them.
        return None
    wrong = "" if hides else wanted[shown]
    observed = f"{VARIABLE}={value} of {gpu.visible_of} " + (
        "hides every card"
        if hides
        else f"names {wrong}, which is no card here" + ("" if shown else ": the engine sees none")
    )
    return Finding(
        observed,
        f"unset, or among {', '.join(choices(gpu.cards))}",
        Remedy("start the server without it, or with a card that is there", anew_without(VARIABLE, facts)),
        tuple(f"GPU {card.index}: {card.name}, {card.uuid or 'no UUID'}" for card in gpu.cards),
        gpu.visible_of,
        severity(facts) if not shown else "warning",
    )


def logged(facts: Facts) -> str | None:
    """As a server that is another user's logged it at its start, where it cannot be told from one that is empty that
    it is not set. NotGathered where no log says."""
    try:
        config = facts.log.config
    except NotGathered:
        config = None
    if config is None or VARIABLE not in config:
        raise NotGathered(f"the environment of {facts.gpu.visible_of} is another user's, and its log does not tell")
    return config[VARIABLE] or None


def names(part: str, cards: tuple[Card, ...]) -> bool:
    """Whether an entry names a card: an index, or the beginning of a UUID. A slice of a card (MIG) is let be."""
    if part.isdigit():
        return int(part) < len(cards)
    if part.startswith("MIG-"):
        return True
    return part.startswith("GPU-") and any(card.uuid is None or card.uuid.startswith(part) for card in cards)


def choices(cards: tuple[Card, ...]) -> list[str]:
    return [str(number) for number in range(len(cards))] + [card.uuid for card in cards if card.uuid]


def unseen(facts: Facts) -> bool:
    """Whether the driver shows cards and the engine, asked, none."""
    gpu = facts.gpu
    return gpu_required(facts) and gpu.state == "fine" and bool(gpu.cards) and gpu.engine_devices == ()


def after_suspend(facts: Facts) -> Judgement:
    gpu = facts.gpu
    if not unseen(facts) or gpu.slept_seconds < SLEPT_SECONDS:
        return None
    return Finding(
        f"this machine slept {gpu.slept_seconds:,.0f} s since its boot, and the engine sees no GPU; the driver does",
        "the engine sees what the driver shows",
        woken(facts),
        tuple(f"GPU {card.index}: {card.name}" for card in gpu.cards),
    )


def woken(facts: Facts) -> Remedy:
    if facts.shell.wsl:
        return Remedy("start WSL anew, which loads the driver of Windows again", (WSL_RESTART, facts.server.up))
    again = ("sudo modprobe --remove nvidia_uvm", "sudo modprobe nvidia_uvm")
    keep = "NVreg_PreserveVideoMemoryAllocations=1 for the module nvidia keeps it from coming back"
    if facts.shell.container is not None:
        return Remedy(f"on the host load nvidia_uvm anew, then start this container again; {keep}", again)
    return Remedy(f"load nvidia_uvm anew and start the server again; {keep}", restarted(facts, between=again))


def engine_sees_none(facts: Facts) -> Judgement:
    gpu, engine = facts.gpu, facts.engine
    cards = ", ".join(f"GPU {card.index}: {card.name}" for card in gpu.cards)
    if unseen(facts):
        observed, remedy = f"{engine.runner} --list-devices names no GPU", make_seen(facts)
    elif not unused(facts):
        return None
    elif facts.log.gpus is None:
        return unsaid_at_start(facts.log)
    elif not facts.log.gpus:
        # A driver that came late is not looked for again (ollama issue 7669).
        observed = "the server found no GPU when it started"
        remedy = Remedy("start it again: it looks for GPUs only then", restarted(facts))
    else:
        return None
    return Finding(
        f"{observed}, and the driver shows {cards}",
        "the cards of the driver",
        remedy,
        (*((f"driver {gpu.driver}",) if gpu.driver else ()), *of_log(facts)),
        engine.executable or "",
    )


def of_log(facts: Facts) -> tuple[str, ...]:
    """What the server said of its search for GPUs."""
    try:
        failed = facts.log.discovery_failed
        return (*((failed.text,) if failed else ()), *facts.log.gpu_lines)
    except NotGathered:
        return ()


def make_seen(facts: Facts) -> Remedy:
    modules = facts.gpu.modules
    if facts.engine.backend == "cpu":
        return Remedy("this engine was built for the CPU alone: install one with CUDA", ("llmctl engine install",))
    if modules and "nvidia_uvm" not in modules:
        commands = ("sudo modprobe nvidia_uvm", *restarted(facts))
        return Remedy("load nvidia_uvm, and start the server again", commands)
    commands = (*restarted(facts), "llmctl logs")
    return Remedy("start the server again, and look at what it says of its GPUs", commands)
