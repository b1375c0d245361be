"""What the cards have to do with a slow answer: their clocks, their links, and who else works on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.gpu import Card
from llmctl.core.checks.facts.speed import ModelSpeed
from llmctl.core.checks.gpu_work import BUSY_PERCENT, WORDS, less, link, rivals
from llmctl.core.checks.speed_cause import Cause
from llmctl.core.checks.words import names
from llmctl.core.memory.token_time import Span, link_seconds

Domain = Literal["memory", "SM"]
CLOCKS = ("nvidia-smi --query --display=PERFORMANCE",)
LINK = (
    "nvidia-smi --query-gpu=index,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max "
    "--format=csv",
)
# A busy card of which nothing is held back may run its memory a little lower.
USUAL_LOSS = 0.1


@dataclass(frozen=True)
class Link:
    """The slowest link of a model's cards: generation and width as it is at work and as it could be. `idle`: its width
    was seen on an idle card, which may have lowered it."""

    words: str
    now: tuple[int | None, int | None]
    best: tuple[int | None, int | None]
    narrow: bool
    idle: bool
    commands: tuple[str, ...] = LINK


def deep_of(facts: Facts) -> DeepFacts | None:
    try:
        return facts.deep
    except NotGathered:
        return None


def cards_of(model: ModelSpeed, facts: Facts) -> tuple[Card, ...]:
    """Those that the model lies on, as they were while it was probed, else as they are now. All of them where NVML does
    not say which these are, and none of a model in host memory."""
    if model.place == "cpu":
        return ()
    try:
        every = at_work(model, facts) or facts.gpu.cards
    except NotGathered:
        return ()
    held = [card for card in every if holds(card, model)] or every
    return tuple(card for card in held if card.name in model.cards) or tuple(held)


def holds(card: Card, model: ModelSpeed) -> bool:
    return any(process.pid == model.runner_pid for process in card.processes)


def at_work(model: ModelSpeed, facts: Facts) -> tuple[Card, ...]:
    """As the probe of this very model saw them: another one may have worked on other cards."""
    deep = deep_of(facts)
    return deep.cards if deep is not None and deep.asked == model.name else ()


def idle(card: Card, model: ModelSpeed, facts: Facts) -> bool:
    """NVML's utilization lags behind a probe, which tells itself that the model's cards work: where these are known."""
    probed = at_work(model, facts) and (holds(card, model) or len(cards_of(model, facts)) == 1)
    return not probed and (card.utilization_percent or 0) < BUSY_PERCENT


def throttled(model: ModelSpeed, facts: Facts, base: float, part: float, domain: Domain) -> list[Cause]:
    """`domain` is the clock that the work waits for: all of its loss counts for `base`, the share that the work takes
    at full clocks and at least. The other clock may cost as much as it is lower, of `part` at most."""
    found = []
    for card in cards_of(model, facts):
        resting = idle(card, model, facts)
        memory = lost(card.memory_clock, card.memory_clock_most)
        if not card.throttled and (resting or (memory or 0.0) < USUAL_LOSS):
            continue
        why = "; ".join(WORDS[reason] for reason in card.throttled) or "the memory's clock is lowered"
        share = None if resting else slowed(card, base, part, domain)
        if resting:
            detail = "the card is idle now, and so are its clocks"
            detail += "; doctor --deep sees them at work" if deep_of(facts) is None else ""
        else:
            detail = clocks(card) or "NVML does not tell its clocks"
        found.append(Cause(f"GPU {card.index}, {why}", share, detail, CLOCKS))
    return found


def slowed(card: Card, base: float, part: float, domain: Domain) -> Span | None:
    memory, multi = lost(card.memory_clock, card.memory_clock_most), lost(card.clock, card.clock_most)
    known = [loss for loss in (memory, multi) if loss is not None]
    if not known:
        return None
    waited = (memory if domain == "memory" else multi) or 0.0
    most = part * max(known)
    return Span(min(most, base * waited / (1 - waited)), most)


def lost(now: int | None, most: int | None) -> float | None:
    """How much lower a clock is than its maximum."""
    return max(0.0, 1 - now / most) if now and most else None


def clocks(card: Card) -> str:
    seen = (("memory", card.memory_clock, card.memory_clock_most), ("SM", card.clock, card.clock_most))
    return ", ".join(f"{name} clock {now:,} of {most:,} MHz" for name, now, most in seen if now and most)


def competing(model: ModelSpeed, facts: Facts) -> list[Cause]:
    """By NVML's samples of the last seconds: while others work on the card the model waits, at most for so long."""
    found = []
    for card in cards_of(model, facts):
        if not facts.gpu.pids_known:
            if len(card.processes) > 1:
                why = "NVML numbers processes as the host does, and here they have other numbers"
                found.append(Cause(f"GPU {card.index}, other programs", None, why, ("nvidia-smi",)))
            continue
        beside = rivals(card, facts)
        if not beside:
            continue
        commands = (f"ps -o pid,user,lstart,args -p {','.join(str(one.pid) for one in beside)}",)
        who = f"GPU {card.index}, {names([f'{one.name} (pid {one.pid})' for one in beside])}"
        busy = [one.busy_percent for one in beside if one.busy_percent is not None]
        if len(busy) < len(beside):
            found.append(Cause(who, None, "NVML does not tell how much they work here", commands))
        else:
            share = Span(0.0, min(1.0, sum(busy) / 100))
            found.append(Cause(who, share, "as much as they keep the card busy", commands))
    return found


def link_of(model: ModelSpeed, facts: Facts) -> Link | None:
    """None where NVML tells nothing of it. An idle card lowers the generation of its link, which then counts as what it
    could be."""
    links = []
    for card in cards_of(model, facts):
        resting = idle(card, model, facts)
        generation = card.pcie_generation_most if resting else card.pcie_generation
        now, best = (generation, card.pcie_width), (card.pcie_generation_most, card.pcie_width_most)
        if None in now or None in best:
            continue
        narrow = less(now[0], best[0]) or less(now[1], best[1])
        words = f"GPU {card.index}, {link(*now)}" + (f" of {link(*best)}" if narrow else "")
        links.append(Link(words, now, best, narrow, resting))
    return max(links, key=lambda one: (byte_seconds(one), one.narrow), default=None)


def byte_seconds(link: Link) -> float:
    """0 where nothing is known of its generation, which is newer than the others then."""
    took = link_seconds(1, *link.now)
    return took.most if took is not None else 0.0
