"""How the cards do their work: slowed down, badly connected, faulty, or shared with others."""

from __future__ import annotations

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.fit import ModelFit
from llmctl.core.checks.facts.gpu import Card, GpuProcess
from llmctl.core.checks.finding import Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.wanted import gpu_required, holder, others, runners
from llmctl.core.checks.words import MIB, size

HOT = frozenset({"sw_thermal", "hw_thermal"})
POWERED = frozenset({"sw_power", "hw_power_brake"})
WORDS = {
    "sw_thermal": "the driver lowers the clocks for heat",
    "hw_thermal": "the card lowers its clocks for heat",
    "hw_power_brake": "the power supply asks the card to slow down",
    "sw_power": "the power limit lowers the clocks",
    "hw_slowdown": "the card has cut its clocks (heat, or too little power)",
}
# At full work a card runs into the maker's own limit: only a limit that was lowered is worth a word.
LOWERED = 0.9
BUSY_PERCENT = 10
# Two cards share the lanes of one, and laptops have no more.
SHARED_LANES = 8
# Others that do so much on the card take it from the model.
COMPETING_PERCENT = 20
LEAST_BYTES = 64 * MIB


def named(card: Card) -> str:
    return f"GPU {card.index}: {card.name}"


def throttled(facts: Facts) -> Judgement:
    return tuple(found for card in facts.gpu.cards if (found := slowed(card)) is not None)


def slowed(card: Card) -> Finding | None:
    reasons = [reason for reason in card.throttled if reason != "sw_power" or limit_lowered(card)]
    if not reasons:
        return None
    figures = [
        None
        if card.temperature is None
        else f"{card.temperature} °C" + of(card.temperature_limit, "slows down at", "°C"),
        None if card.power_watts is None else f"{card.power_watts:.0f} W" + of(card.power_limit_watts, "limit", "W"),
        None if card.clock is None else f"{card.clock} MHz" + of(card.clock_most, "of", "MHz"),
    ]
    if HOT & set(reasons):
        remedy = Remedy(
            "clean and cool the card, or lower its power limit", ("nvidia-smi --query --display=TEMPERATURE",)
        )
    elif "hw_power_brake" in reasons or "hw_slowdown" in reasons:
        remedy = Remedy("look at the power supply and its cables", ("nvidia-smi --query --display=PERFORMANCE,POWER",))
    else:
        watts = f"{card.power_default_watts:.0f}"
        remedy = Remedy(
            "where nobody lowered it on purpose, set the maker's limit again",
            (f"sudo nvidia-smi --id={card.index} --power-limit={watts}",),
        )
    return Finding(
        "; ".join(WORDS[reason] for reason in reasons),
        "clocks that only the work decides",
        remedy,
        tuple(figure for figure in figures if figure),
        named(card),
        "info" if reasons == ["sw_power"] else None,
    )


def of(limit: float | None, word: str, unit: str) -> str:
    return "" if limit is None else f" ({word} {limit:.0f} {unit})"


def limit_lowered(card: Card) -> bool:
    limit, usual = card.power_limit_watts, card.power_default_watts
    return limit is not None and usual is not None and limit < usual * LOWERED


def pcie(facts: Facts) -> Judgement:
    return tuple(found for card in facts.gpu.cards if (found := narrow(card)) is not None)


def narrow(card: Card) -> Finding | None:
    """Of a card that works: an idle one lowers the generation of its link, and some lower its width."""
    now, most = (card.pcie_generation, card.pcie_width), (card.pcie_generation_most, card.pcie_width_most)
    thin, slow = less(card.pcie_width, card.pcie_width_most), less(card.pcie_generation, card.pcie_generation_most)
    if (card.utilization_percent or 0) < BUSY_PERCENT or not (thin or slow):
        return None
    shared = not slow and (card.pcie_width or 0) >= SHARED_LANES
    return Finding(
        f"the link runs at {link(*now)} while the card is {card.utilization_percent} % busy",
        f"{link(*most)}, which card and slot can do",
        Remedy(
            "where the board gives the slot no more there is nothing to mend; else power off, seat the card anew, "
            "look at riser and slot"
            if shared
            else "power off, seat the card anew, look at riser and slot: loads and offloaded layers are slower by as "
            "much",
            ("nvidia-smi --query --display=PERFORMANCE", "sudo dmesg --level=err,warn"),
        ),
        subject=named(card),
        severity="info" if shared else None,
    )


def less(now: int | None, most: int | None) -> bool:
    return now is not None and most is not None and now < most


def link(generation: int | None, width: int | None) -> str:
    return f"PCIe {generation or '?'} x{width or '?'}"


def ecc(facts: Facts) -> Judgement:
    return tuple(
        Finding(
            f"{card.ecc_uncorrected} uncorrected memory errors since the driver was loaded"
            + (f", {card.ecc_corrected} corrected ones" if card.ecc_corrected else ""),
            "none",
            Remedy(
                "end what uses the card and reset it; where they come again, have the card replaced",
                ("nvidia-smi --query --display=ECC", f"sudo nvidia-smi --gpu-reset --id={card.index}"),
            ),
            subject=named(card),
        )
        for card in facts.gpu.cards
        if card.ecc_uncorrected
    )


def mig(facts: Facts) -> Judgement:
    return tuple(
        Finding(
            "MIG is on: the card is cut into slices, and a model gets one of them at most",
            "MIG off, so that a model has the whole card",
            Remedy(
                "where nobody needs the slices, switch it off; nothing may use the card meanwhile",
                (f"sudo nvidia-smi --id={card.index} --multi-instance-gpu=0",),
            ),
            subject=named(card),
        )
        for card in facts.gpu.cards
        if card.mig
    )


def persistence(facts: Facts) -> Judgement:
    """Only of a card that a model wants and nobody keeps awake."""
    if not gpu_required(facts):
        return None
    return tuple(
        Finding(
            "persistence mode is off, no display is attached and nobody uses the card: the driver lets go of it, and "
            "the next load waits until it has started it again",
            "persistence mode on, on a machine without a display",
            Remedy(
                "switch it on; nvidia-persistenced does it at every boot", ("sudo nvidia-smi --persistence-mode=1",)
            ),
            subject=named(card),
        )
        for card in facts.gpu.cards
        if card.persistence is False and card.display is False and not card.processes
    )


def competing(facts: Facts) -> Judgement:
    own = runners(facts)
    found = [(card, beside) for card in facts.gpu.cards if (beside := rivals(card, facts))]
    if found and not facts.gpu.pids_known:
        return Unknown("NVML numbers processes as the host does, and here they have other numbers")
    return tuple(
        contested(card, beside, shared=any(one.pid in own for one in card.processes)) for card, beside in found
    )


def rivals(card: Card, facts: Facts) -> list[GpuProcess]:
    """Who computes on the card beside the engine's runners, orphans among them."""
    own = runners(facts)
    return [one for one in card.processes if one.pid not in own and computes(one)]


def computes(process: GpuProcess) -> bool:
    """Whether it is no program of the display, and holds more than a trifle."""
    return process.kind != "graphics" and (process.held_bytes is None or process.held_bytes >= LEAST_BYTES)


def contested(card: Card, beside: list[GpuProcess], *, shared: bool) -> Finding:
    """`shared`: the engine's own process is on the card too, and may be what keeps it busy."""
    held = size(sum(process.held_bytes or 0 for process in beside))
    busy = card.utilization_percent
    many = f"{len(beside)} other compute processes hold" if len(beside) > 1 else "another compute process holds"
    return Finding(
        f"{many} {held} of {size(card.total_bytes)}"
        + ("" if busy is None else f"; the card is {busy} % busy" + (", with the model's own work" if shared else "")),
        "the card for the model alone",
        Remedy(
            "end them, or start what they do under `llmctl yield`, which unloads the model while a command runs",
            ("nvidia-smi", f"ps -o pid,user,lstart,args -p {','.join(str(one.pid) for one in beside)}"),
        ),
        tuple(holder(process) for process in beside),
        named(card),
        "warning" if (busy or 0) >= COMPETING_PERCENT and not shared else None,
    )


def display(facts: Facts) -> Judgement:
    """Only where the model lacks what the display's programs hold."""
    try:
        lacking = [model for model in facts.fit.models if model.gpu and model.verdict in {"partial", "no"}]
    except NotGathered:
        return None
    short = max((lacks(model) for model in lacking), default=0)
    found = []
    for card in facts.gpu.cards:
        shown = [process for process in others(card, facts) if process.kind == "graphics"]
        held = sum(process.held_bytes or 0 for process in shown)
        if 0 < short <= held:
            found.append(
                Finding(
                    f"programs of the display hold {size(held)}, and the model lacks {size(short)}",
                    "a card without a display, or the display on another card",
                    Remedy(
                        "attach the display to another card, or end the graphical session while the model runs",
                        ("sudo systemctl isolate multi-user.target",),
                    ),
                    tuple(holder(process) for process in shown),
                    named(card),
                )
            )
    return tuple(found)


def lacks(model: ModelFit) -> int:
    """Bytes; 0 where that is not known."""
    if model.needed_bytes is None or model.free_bytes is None:
        return 0
    return max(0, model.needed_bytes - model.free_bytes)
