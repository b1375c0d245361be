"""Which shipped profile a machine's cards get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.gpu import Gpu, choose_profile
from llmctl.system.shipped import shipped_names

MIB = 1024**2


def cards(*total_mib: int) -> list[Gpu]:
    return [Gpu(index, None, f"Card {index}", mib * MIB, None) for index, mib in enumerate(total_mib)]


# What the drivers report for the cards in the comment.
@pytest.mark.parametrize(
    ("total_mib", "name"),
    [
        ((), "cpu"),
        ((4096,), "cpu"),
        ((6144,), "cpu"),
        ((8188,), "8gb"),  # RTX 4060
        ((11264,), "8gb"),  # RTX 2080 Ti
        ((12288,), "12gb"),  # RTX 3060
        ((15360,), "12gb"),  # Tesla T4
        ((16380,), "16gb"),  # RTX 4060 Ti
        ((23028,), "16gb"),  # A10 with ECC
        ((24124,), "24gb"),  # RTX 3090 as Ollama sees it
        ((24576,), "24gb"),  # RTX 3090
        ((32607,), "24gb"),  # RTX 5090
        ((46068,), "48gb"),  # L40S with ECC
        ((81559,), "48gb"),  # H100
        ((24576, 24576), "2x24gb-llama3.3-70b"),
        ((24564, 8192, 24576), "2x24gb-llama3.3-70b"),
        ((24576, 12288), "24gb"),
        ((12288, 12288), "12gb"),
        ((46068, 46068), "48gb"),
    ],
)
def test_the_profile_for_these_cards(total_mib: tuple[int, ...], name: str) -> None:
    choice = choose_profile(cards(*total_mib))
    assert choice.name == name
    assert choice.reason


def test_the_reason_names_the_card_and_its_size() -> None:
    assert choose_profile(cards(24576)).reason == "Card 0 with 24.0 GiB was found"
    assert choose_profile(cards(8192, 24576)).reason == "Card 1 with 24.0 GiB is the largest of 2 GPUs"
    assert "less than the smallest" in choose_profile(cards(4096)).reason
    assert choose_profile([]).reason == "no GPU was found"


@given(st.lists(st.integers(0, 200_000), max_size=5))
def test_whatever_is_chosen_is_shipped_and_order_does_not_matter(total_mib: list[int]) -> None:
    choice = choose_profile(cards(*total_mib))
    assert choice.name in shipped_names()
    assert choose_profile(cards(*sorted(total_mib))).name == choice.name
