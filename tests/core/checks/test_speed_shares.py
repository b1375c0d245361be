"""Why an answer is slow, on figures: each cause has the share that its figures give, and none is invented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.checks import speed_shares
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.facts.gpu import Card, GpuFacts, GpuProcess
from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.checks.facts.server import Runner, ServerFacts, ServerProcess
from llmctl.core.checks.facts.speed import ModelSpeed
from llmctl.core.checks.speed_cards import link_of
from llmctl.core.checks.speed_cause import Cause, ordered, percent, told, words
from llmctl.core.memory.token_time import Span, TokenTime
from tests.doctor.proving import parses

GIB = 1 << 30
OWN = 7
NOTHING = Span(0.0, 0.0)
SERVE = ServerProcess(5, "ollama", "/usr/bin/ollama", "S", 11434, None, {}, 9.0, unit="ollama.service")
RUNNER = Runner(OWN, "ollama", 5, (), "S", None, None, "ok", 9.0)
BESIDE = replace(RUNNER, pid=8)
SERVER = ServerFacts(
    "http://127.0.0.1:11434", "default", "answers", owner="foreign", pid=5, processes=(SERVE,), runners=(RUNNER, BESIDE)
)
CARD = Card(
    0,
    "RTX",
    24 * GIB,
    GIB,
    processes=(GpuProcess(OWN, "llama-server", "ann", GIB, "compute"),),
    utilization_percent=90,
    clock=2100,
    clock_most=2100,
    memory_clock=9500,
    memory_clock_most=9500,
    pcie_generation=4,
    pcie_generation_most=4,
    pcie_width=16,
    pcie_width_most=16,
)
HOT = replace(CARD, throttled=("hw_thermal",))
RIVAL = GpuProcess(9, "python3", "ann", GIB, "compute", busy_percent=40)
MODEL = ModelSpeed(
    "m", "gpu", 8192, 5, 10.0, time=TokenTime(Span(0.02, 0.03), NOTHING, NOTHING), cards=("RTX",), runner_pid=OWN
)
PARTIAL = replace(
    MODEL,
    place="partial",
    time=TokenTime(Span(0.01, 0.02), Span(0.05, 0.06), NOTHING),
    host_weights_bytes=20_000_000_000,
    host_read_bytes=20_000_000_000,
    crossing_bytes=5_000_000,
)
QUIET = LogFacts("server.log", 1, True)


def facts(*cards: Card, log: LogFacts = QUIET, deep: DeepFacts | None = None, pids: bool = True) -> Facts:
    areas: dict[str, Any] = {
        "gpu": GpuFacts("fine", cards=cards, pids_known=pids),
        "log": log,
        "server": SERVER,
    }
    return Facts(areas if deep is None else {**areas, "deep": deep})


def causes(model: ModelSpeed, found: Facts, *, probed: bool = False) -> dict[str, Cause]:
    """By how they begin, of a token of 0.1 s."""
    return {cause.words.partition(",")[0]: cause for cause in speed_shares.of_token(model, found, 10.0, probed=probed)}


def near(share: Span | None, least: float, most: float) -> bool:
    assert share is not None
    return (share.least, share.most) == pytest.approx((least, most), abs=1e-4)


def test_layers_in_host_memory() -> None:
    found = causes(PARTIAL, facts(CARD))
    assert near(found["offloaded layers"].share, 0.5, 0.6)
    assert found["offloaded layers"].commands == ("llmctl fit m",)
    assert near(found["reading the weights on the GPU"].share, 0.1, 0.2)
    # What crosses the link for a token is little, and told with its figure: 5 MB over 31.5 GB/s.
    link = found["GPU 0"]
    assert "5.0 MB cross it" in link.detail
    assert near(link.share, 0.0, 0.0021)


@pytest.mark.parametrize(
    ("used", "said"), [(4000, "4,000 of 8,192 tokens at the end of an answer"), (7900, "7,900 of 8,192 tokens")]
)
def test_the_context_that_the_answers_had(used: int, said: str) -> None:
    model = replace(MODEL, used_tokens=used, time=TokenTime(Span(0.02, 0.03), NOTHING, Span(0.006, 0.01)))
    context = causes(model, facts(CARD))["the context"]
    assert near(context.share, 0.0, 0.1)
    assert context.detail.startswith(said)
    assert ("near full" in context.detail) == (used == 7900)
    # The probe's own was a few tokens.
    assert "the context" not in causes(model, facts(CARD), probed=True)


def test_a_context_that_an_older_llmctl_did_not_note() -> None:
    model = replace(MODEL, time=TokenTime(Span(0.02, 0.03), NOTHING, Span(0.006, 0.01)))
    context = causes(model, facts(CARD))["the context"]
    assert context.share is None
    assert context.detail.endswith("a full one takes at most 10 %")
    on_cpu = replace(MODEL, place="cpu", time=None, used_tokens=4000, cache_share=0.25)
    assert causes(on_cpu, facts())["the context"].detail.startswith("it is 25 % of what a token reads, 4,000 of")


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        # A token waits for the memory: what is read takes twice as long, and the whole token at most.
        ({"memory_clock": 4750}, 0.2, 0.5),
        # For the multiprocessors perhaps.
        ({"clock": 525}, 0.0, 0.75),
        ({"clock": 1050, "memory_clock": 9025}, 0.2 * 0.05 / 0.95, 0.5),
        ({"memory_clock": None, "clock": 1050}, 0.0, 0.5),
    ],
)
def test_clocks_beside_their_maximum(changes: dict[str, int | None], least: float, most: float) -> None:
    card = replace(HOT, **changes)  # type: ignore[arg-type]
    found = causes(MODEL, facts(card))["GPU 0"]
    assert near(found.share, least, most)
    assert found.commands == ("nvidia-smi --query --display=PERFORMANCE",)


def test_of_a_token_that_waits_for_host_memory_a_clock_shortens_the_rest() -> None:
    found = speed_shares.of_token(PARTIAL, facts(replace(HOT, clock=1050)), 10.0, probed=False)
    (clocks,) = (cause for cause in found if "heat" in cause.words)
    assert near(clocks.share, 0.0, 0.25)


def test_clocks_that_say_nothing() -> None:
    idle = replace(HOT, utilization_percent=0, clock=210, memory_clock=405)
    assert "idle" in causes(MODEL, facts(idle))["GPU 0"].detail
    # As they were while the probe ran.
    at_work = DeepFacts(asked="m", cards=(replace(HOT, utilization_percent=0, memory_clock=4750),))
    assert near(causes(MODEL, facts(idle, deep=at_work))["GPU 0"].share, 0.2, 0.5)
    blind = replace(HOT, clock=None, memory_clock=None)
    assert causes(MODEL, facts(blind))["GPU 0"].detail == "NVML does not tell its clocks"
    # An idle card that nothing holds back has no fault, nor has a busy one a little below its maximum.
    assert "GPU 0" not in causes(MODEL, facts(replace(idle, throttled=())))
    assert "GPU 0" not in causes(MODEL, facts(replace(CARD, memory_clock=9250, clock=1700)))
    assert "GPU 0" in causes(MODEL, facts(replace(CARD, memory_clock=4750)))


def test_a_probe_of_another_model_says_nothing_of_this_ones_card() -> None:
    resting = {"utilization_percent": 0, "clock": 210, "memory_clock": 405, "pcie_generation": 1}
    other = replace(CARD, index=1, processes=(replace(CARD.processes[0], pid=BESIDE.pid),), **resting)  # type: ignore[arg-type]
    probed = DeepFacts(asked="m", cards=(CARD, other))
    beside = replace(MODEL, name="other", runner_pid=BESIDE.pid)
    assert set(causes(beside, facts(CARD, other, deep=probed))) == {"reading the weights on the GPU"}
    # Of a card that is held back its share is not known, and another --deep would not tell it.
    found = facts(CARD, replace(other, throttled=("hw_thermal",)), deep=probed)
    assert causes(beside, found)["GPU 1"].detail == "the card is idle now, and so are its clocks"
    # Nor is it known which of two such cards worked where NVML names no process of the model.
    unnamed = replace(probed, cards=(replace(CARD, processes=()), replace(other, processes=())))
    assert set(causes(MODEL, facts(CARD, other, deep=unnamed))) == {"reading the weights on the GPU"}


def test_a_model_in_host_memory_has_no_card_to_blame() -> None:
    model = replace(MODEL, place="cpu", time=None, cards=())
    busy = replace(HOT, processes=(RIVAL,), clock=525, pcie_width=4)
    for deep in (None, DeepFacts(asked="m", cards=(busy,))):
        assert causes(model, facts(busy, deep=deep)) == {}
        assert speed_shares.of_first_token(model, facts(busy, deep=deep), 1000, 10.0) == ()


def test_a_card_that_the_model_does_not_use_is_no_cause() -> None:
    other = replace(HOT, index=1, name="GTX", processes=(), memory_clock=4750)
    assert set(causes(MODEL, facts(CARD, other))) == {"reading the weights on the GPU"}
    twin = replace(other, name=CARD.name)
    assert set(causes(MODEL, facts(CARD, twin))) == {"reading the weights on the GPU"}
    # Where NVML lists no process, the name still tells.
    bare = replace(CARD, processes=())
    assert set(causes(MODEL, facts(bare, other))) == {"reading the weights on the GPU"}


def test_other_programs_by_how_much_they_work() -> None:
    shared = replace(CARD, processes=(*CARD.processes, RIVAL, replace(RIVAL, pid=10, busy_percent=15)))
    found = causes(MODEL, facts(shared))["GPU 0"]
    assert near(found.share, 0.0, 0.55)
    assert found.commands == ("ps -o pid,user,lstart,args -p 9,10",)
    silent = replace(CARD, processes=(*CARD.processes, replace(RIVAL, busy_percent=None)))
    assert causes(MODEL, facts(silent))["GPU 0"].share is None
    # In a container our own runner goes by another number.
    unknown = causes(MODEL, facts(shared, pids=False))["GPU 0"]
    assert unknown.share is None
    assert "numbers processes as the host does" in unknown.detail


def test_debug_logging_is_bounded_by_what_the_server_computes() -> None:
    log = replace(QUIET, debug=True)
    assert causes(MODEL, facts(log=log))["debug logging"].detail == "llmctl doctor --deep measures it"
    measured = DeepFacts(asked="m", server_share=0.03)
    found = causes(MODEL, facts(log=log, deep=measured))["debug logging"]
    assert near(found.share, 0.0, 0.03)
    assert found.commands[0] == "sudo systemctl edit ollama.service"
    for other in (replace(measured, server_share=None), replace(measured, asked="another")):
        assert causes(MODEL, facts(log=log, deep=other))["debug logging"].share is None


def test_the_first_token_waits_for_the_copies_and_the_link() -> None:
    """20 GB are copied twice for 1,000 tokens: 1.27 s over 16 lanes of PCIe 4, and four times that over four lanes."""
    model = replace(PARTIAL, prompt_seconds=Span(0.0002, 0.0008))
    narrow = replace(CARD, pcie_width=4)
    found = {one.words: one for one in speed_shares.of_first_token(model, facts(narrow), 1000, 10.0)}
    assert near(found["offloaded layers"].share, 0.1270, 0.1671)
    assert near(found["GPU 0, PCIe 4 x4 of PCIe 4 x16"].share, 0.3809, 0.5012)
    assert near(found["the arithmetic of the prompt"].share, 0.02, 0.08)
    largest = speed_shares.first_commands(tuple(found.values()), facts(narrow))
    assert largest[0].startswith("nvidia-smi --query-gpu=index,pcie.link")
    parses(largest[0])
    # An idle card lowers the generation of its link, and perhaps its width.
    idle = replace(narrow, utilization_percent=0, pcie_generation=1)
    found = {one.words: one for one in speed_shares.of_first_token(model, facts(idle), 1000, 10.0)}
    assert near(found["GPU 0, PCIe 4 x4 of PCIe 4 x16"].share, 0.0, 0.5012)
    # On the card alone nothing is copied, and the multiprocessors' clock counts.
    slow = replace(HOT, clock=1050)
    found = {one.words: one for one in speed_shares.of_first_token(replace(model, place="gpu"), facts(slow), 1000, 2.0)}
    assert "offloaded layers" not in found
    assert near(found["GPU 0, the card lowers its clocks for heat"].share, 0.1, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {}, "GPU 0, PCIe 4 x16"),
        ({"pcie_width": 8}, {"pcie_width": 1}, "GPU 1, PCIe 4 x1 of PCIe 4 x16"),
        ({"pcie_width": 1}, {"pcie_width": 8}, "GPU 0, PCIe 4 x1 of PCIe 4 x16"),
        # The slowest may be as fast as its slot can be.
        ({}, {"pcie_width": 4, "pcie_width_most": 4}, "GPU 1, PCIe 4 x4"),
        ({"pcie_width": 8}, {"pcie_width": 4, "pcie_width_most": 4}, "GPU 1, PCIe 4 x4"),
        # Of two that are as slow the one that could be faster.
        ({"pcie_width": 8, "pcie_width_most": 8}, {"pcie_width": 8}, "GPU 1, PCIe 4 x8 of PCIe 4 x16"),
        # A generation that is newer than what is known here.
        ({"pcie_generation": 9, "pcie_generation_most": 9}, {}, "GPU 1, PCIe 4 x16"),
    ],
)
def test_the_slowest_link_counts(first: dict[str, int], second: dict[str, int], said: str) -> None:
    cards = replace(CARD, **first), replace(CARD, index=1, **second)  # type: ignore[arg-type]
    found = link_of(MODEL, facts(*cards))
    assert found is not None
    assert found.words == said


def test_the_remedy_is_that_of_the_largest_share() -> None:
    def first(model: ModelSpeed, found: Facts) -> str:
        commands = speed_shares.first_commands(speed_shares.of_token(model, found, 10.0, probed=False), found)
        for command in commands:
            parses(command)
        return commands[0]

    debugged = replace(QUIET, debug=True)
    assert first(PARTIAL, facts(CARD)) == "llmctl fit m"
    assert first(PARTIAL, facts(replace(HOT, clock=10))) == "llmctl fit m"
    assert first(MODEL, facts(replace(HOT, clock=525))).startswith("nvidia-smi")
    assert (
        first(MODEL, facts(CARD, log=debugged, deep=DeepFacts(asked="m", server_share=0.5)))
        == "sudo systemctl edit ollama.service"
    )
    # A share that only --deep could tell, and nothing at all.
    assert first(MODEL, facts(CARD, log=debugged)) == "llmctl doctor speed --deep"
    assert first(MODEL, facts(CARD)) == "llmctl doctor gpu memory"


def test_the_largest_first_and_what_is_left() -> None:
    found = ordered(
        (
            Cause("reading", Span(0.1, 0.2)),
            Cause("unknown", None, "nobody tells", ("a",)),
            Cause("little", Span(0.0, 0.0004), "", ("b",)),
            Cause("large", Span(0.3, 0.4), "figures", ("c",)),
        )
    )
    assert told(found, "of it") == (
        "large: 30 to 40 % of it (figures)",
        "little: less than 0.1 % of it",
        "reading: 10 to 20 % of it",
        "unknown: its share is not known: nobody tells",
        "at least 40 % of it is not explained by these shares",
    )
    assert told(found[:1] * 3, "of it")[-1] == "together these can explain all of it"
    assert told((), "of it") == ("none of the causes that doctor knows was seen",)
    exact = (Cause("half", Span(0.5, 0.5), "", ("d",)),)
    assert told(exact, "of it") == ("half: 50 % of it", "50 % of it is not explained by these shares")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (Span(0.0, 0.0), "0 %"),
        (Span(0.0, 0.4), "at most 40 %"),
        (Span(0.004, 0.1), "0.4 to 10 %"),
        (Span(0.0004, 0.004), "at most 0.4 %"),
    ],
)
def test_a_share_in_words(share: Span, said: str) -> None:
    assert words(share) == said
    assert percent(0.0004) == "less than 0.1 %"
