"""Which layers need not be emulated one by one: equal ones, once the allocator repeats itself.

Where a run of equal layers (or of equal groups, such as five sliding and one full) has come back to the very state
it was in a whole number of groups before, more of them change nothing. So the graph is drawn with fewer, and the
states at the cut prove it; where they do not, all layers are drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

_GROUPS = (1, 2, 3, 4, 5, 6, 8)
_BEHIND = 1


@dataclass(frozen=True)
class Cut:
    """After layer `after`, `repeats` groups of `group` layers are left out."""

    after: int
    group: int
    repeats: int

    def holds(self, states: Mapping[int, Hashable]) -> bool:
        """Whether the state at the cut is that of some groups before, a number that divides what is left out."""
        if self.after not in states:
            return False
        for back in range(1, _ahead(self.group)):
            if self.repeats % back == 0 and states.get(self.after - back * self.group) == states[self.after]:
                return True
        return False


def cuts(kinds: Sequence[Hashable]) -> tuple[Cut, ...]:
    """Where to cut, from the kind of each layer. Layers of one kind are alike in all that the graph shows."""
    found, start = [], 0
    while start < len(kinds):
        cut, end = max((_run(kinds, start, group) for group in _GROUPS), key=lambda run: _saved(run[0]))
        if cut is None:
            start += 1
            continue
        found.append(cut)
        start = end
    return tuple(found)


def _saved(cut: Cut | None) -> int:
    return cut.group * cut.repeats if cut else 0


def _run(kinds: Sequence[Hashable], start: int, group: int) -> tuple[Cut | None, int]:
    end = start + group
    while end < len(kinds) and kinds[end] == kinds[end - group]:
        end += 1
    repeats = (end - start) // group - _ahead(group) - _BEHIND
    if repeats > 1 and group == 1:
        repeats -= repeats % 2
    return (Cut(start + _ahead(group) * group - 1, group, repeats) if repeats > 0 else None), end


def _ahead(group: int) -> int:
    """The groups that are drawn for the allocator to settle. Single layers may alternate between two states."""
    return 4 if group == 1 else 2


def kept(layers: int, left_out: Sequence[Cut]) -> list[int]:
    gone: set[int] = set()
    for cut in left_out:
        gone.update(range(cut.after + 1, cut.after + 1 + cut.group * cut.repeats))
    return [layer for layer in range(layers) if layer not in gone]
