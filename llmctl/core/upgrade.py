"""Whether a new engine may replace the old one: the same answers, within a tolerance, about as fast.

Answers. Both engines continue a few fixed texts, always taking the likeliest token, and say how likely each token and
its rivals were. As long as they write the same, they stand before the same text, and their probabilities can be
compared number by number. Where they part, that token still had the same text before it: if both engines held both
tokens for nearly equally likely, rounding decided, and what comes after says nothing. Other kernels round otherwise,
so a share of equal words alone would accuse the innocent; other weights or a broken kernel shift the probabilities of
every token, also of those that stay the likeliest.

The figures (docs/upgrade.md): between 0.33.0 and 0.34.0 on one CPU every probability was equal to the last digit; other
attention kernels make 0.02 on average, a KV cache of 8 instead of 16 bits 0.03, always with partings within 0.25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from llmctl.core.token import Token

# Mean of |difference of the natural logarithms of a token's probability| over all tokens compared.
DIFFERENCE_LIMIT = 0.08
# Two tokens are a close call where their probabilities are within this factor's logarithm of each other.
CLOSE_CALL = 0.5
# How much slower the new one may be: runs beside each other differ by some percent on a quiet machine.
DEFAULT_MARGIN_PERCENT = 15.0


@dataclass(frozen=True)
class Answer:
    """How one text was continued."""

    prompt: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Likeness:
    """Two sets of answers beside each other. `equal_tokens` of `tokens` came before the first difference of each
    text; `difference` is the mean over those, None where there was nothing to compare."""

    tokens: int
    equal_tokens: int
    difference: float | None
    reasons: tuple[str, ...] = ()


def compare(old: Sequence[Answer], new: Sequence[Answer]) -> Likeness:
    """Whether `new` says what `old` says. `reasons` is empty where it does."""
    differences: list[float] = []
    reasons = []
    for before, after in zip(old, new, strict=True):
        equal = equal_length(before, after)
        differences += [abs(a.logprob - b.logprob) for a, b in zip(before.tokens[:equal], after.tokens, strict=False)]
        if problem := parting(before, after, equal):
            reasons.append(problem)
    mean = sum(differences) / len(differences) if differences else None
    if mean is not None and mean > DIFFERENCE_LIMIT:
        reasons.append(f"its probabilities differ by {mean:.2f} on average, more than {DIFFERENCE_LIMIT}")
    return Likeness(sum(len(answer.tokens) for answer in old), len(differences), mean, tuple(reasons))


def equal_length(old: Answer, new: Answer) -> int:
    pairs = zip(old.tokens, new.tokens, strict=False)
    return next(
        (number for number, (a, b) in enumerate(pairs) if a.text != b.text), min(len(old.tokens), len(new.tokens))
    )


def parting(old: Answer, new: Answer, place: int) -> str | None:
    """Why the first difference is one that rounding does not explain; None where there is none, or it does."""
    if place >= len(old.tokens) or place >= len(new.tokens):
        # One ended earlier. The end has no text, so that its probability is not told.
        short = min(len(old.tokens), len(new.tokens))
        return f"after {old.prompt!r} it wrote nothing" if short == 0 and old.tokens else None
    a, b = old.tokens[place], new.tokens[place]
    if close(a, b.text) and close(b, a.text):
        return None
    return f"after {old.prompt!r} it wrote {written(new)!r} instead of {written(old)!r}"


def close(token: Token, other: str) -> bool:
    """Whether an engine held `other` for nearly as likely as what it wrote."""
    rival = token.rivals.get(other)
    return rival is not None and token.logprob - rival <= CLOSE_CALL


def written(answer: Answer) -> str:
    text = "".join(token.text for token in answer.tokens)
    return text if len(text) <= 40 else text[:37] + "..."


def middle(speeds: Sequence[float]) -> float | None:
    """The median, which one run that was disturbed does not move."""
    return median(speeds) if speeds else None


def slower(old: float | None, new: float | None, margin_percent: float) -> str | None:
    """Why the new speed (tokens per second) is too low; None where it is not, or nothing is known of the old."""
    if old is None:
        return None
    if new is None:
        return "its speed could not be measured"
    least = old * (1 - margin_percent / 100)
    if new >= least:
        return None
    percent = 100 * (1 - new / old)
    return f"{new:.1f} tokens/s, {percent:.0f} % slower than {old:.1f} before; the margin is {margin_percent:g} %"
