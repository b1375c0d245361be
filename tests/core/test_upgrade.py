"""Which differences between two engines rounding explains."""

from __future__ import annotations

import pytest

from llmctl.core.token import Token
from llmctl.core.upgrade import Answer, compare, middle, slower


def answer(text: str, shift: float = 0.0, *, close: str | None = None, gap: float = 0.1) -> Answer:
    """One token for each letter; each had `close` as a rival that was `gap` less likely."""
    rivals = {} if close is None else {close: -1.0 + shift - gap}
    return Answer("Once", tuple(Token(letter, -1.0 + shift, {letter: -1.0 + shift, **rivals}) for letter in text))


def test_the_same_tokens_with_the_same_probabilities() -> None:
    found = compare([answer("abcd")], [answer("abcd")])
    assert (found.tokens, found.equal_tokens, found.difference, found.reasons) == (4, 4, 0.0, ())


def test_rounding_shifts_every_probability_a_little() -> None:
    assert compare([answer("abcd")], [answer("abcd", 0.05)]).reasons == ()


def test_other_weights_may_write_the_same_and_are_less_sure_of_it() -> None:
    (reason,) = compare([answer("abcd")], [answer("abcd", -0.4)]).reasons
    assert "0.40 on average" in reason


def test_a_parting_where_both_held_both_for_equally_likely() -> None:
    found = compare([answer("abx", close="y")], [answer("aby", close="x")])
    assert (found.equal_tokens, found.reasons) == (2, ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (answer("abx", close="y", gap=2.0), answer("aby", close="x")),
        (answer("abx", close="y"), answer("aby", close="x", gap=2.0)),
        (answer("abx"), answer("aby", close="x")),
        (answer("abx", close="y"), answer("aby")),
    ],
)
def test_a_parting_that_either_engine_calls_clear(old: Answer, new: Answer) -> None:
    (reason,) = compare([old], [new]).reasons
    assert "'aby' instead of 'abx'" in reason


def test_what_follows_a_parting_is_not_compared() -> None:
    old, new = answer("axabcd", close="y"), answer("ayzzzz", close="x")
    assert compare([old], [new]).reasons == ()


def test_an_end_that_came_earlier_is_no_fault_but_silence_is() -> None:
    assert compare([answer("abcd")], [answer("ab")]).reasons == ()
    assert "wrote nothing" in compare([answer("abcd")], [answer("")]).reasons[0]
    assert compare([answer("")], [answer("")]).difference is None


@pytest.mark.parametrize(
    ("old", "new", "bad"),
    [(100.0, 85.0, False), (100.0, 84.9, True), (100.0, 400.0, False), (None, 1.0, False), (100.0, None, True)],
)
def test_speed_within_the_margin(old: float | None, new: float | None, bad: bool) -> None:
    assert (slower(old, new, 15) is not None) == bad


def test_one_disturbed_run_does_not_move_the_middle() -> None:
    assert middle([30.0, 31.0, 1.0, 30.5, 29.0]) == 30.0
    assert middle([]) is None
