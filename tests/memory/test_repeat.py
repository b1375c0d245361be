"""Which layers are left out, and when the allocator's states allow it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.memory.graph.repeat import Cut, cuts, kept


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ("a" * 20, (Cut(after=3, group=1, repeats=14),)),
        ("a" * 5, ()),
        ("aaaaab" * 8, (Cut(after=11, group=6, repeats=5),)),
        ("a" * 10 + "b" * 10, (Cut(3, 1, 4), Cut(13, 1, 4))),
        ("abcdefgh", ()),
        ("", ()),
    ],
)
def test_the_longest_run_of_equal_groups_is_cut(kinds: str, found: tuple[Cut, ...]) -> None:
    assert cuts(kinds) == found


@given(st.lists(st.sampled_from("aab"), max_size=60))
def test_what_is_kept_has_the_same_neighbours_as_before(kinds: list[str]) -> None:
    left = kept(len(kinds), cuts(kinds))
    pairs = {(kinds[one], kinds[other]) for one, other in pairwise(left)}
    assert pairs <= set(pairwise(kinds))
    assert [kinds[layer] for layer in left][-1:] == kinds[-1:]
    assert set(kinds) == {kinds[layer] for layer in left}


@pytest.mark.parametrize(
    ("states", "holds"),
    [
        ({0: "p", 1: "q", 2: "r", 3: "r"}, True),
        ({0: "p", 1: "q", 2: "p", 3: "q"}, True),
        ({0: "q", 1: "p", 2: "r", 3: "q"}, False),
        ({0: "p", 1: "q", 2: "r", 3: "s"}, False),
        ({}, False),
    ],
    ids=["settled", "alternating", "three in turn, four left out", "still moving", "not seen"],
)
def test_a_cut_holds_only_where_the_state_came_back(states: dict[int, str], holds: bool) -> None:
    assert Cut(after=3, group=1, repeats=4).holds(states) is holds
