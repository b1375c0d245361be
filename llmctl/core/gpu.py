"""Graphics cards, and the shipped profile that suits those a machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 1024**3

# A card sold as 24 GB shows 23.5 GiB to 24 GiB, and 6 % less with ECC (an L40S or A6000: 45.0 GiB). The first
# profile whose floor the card reaches is chosen; cards between two sizes get the smaller profile.
SIZES: tuple[tuple[float, str], ...] = (
    (44.5, "48gb"),
    (23.0, "24gb"),
    (15.5, "16gb"),
    (11.5, "12gb"),
    (7.5, "8gb"),
)
PAIR_FLOOR, PAIR = 23.0, "2x24gb-llama3.3-70b"
WITHOUT_GPU = "cpu"


@dataclass(frozen=True)
class Gpu:
    """One card as the driver or the engine reports it. `free_bytes` None means unknown."""

    index: int
    uuid: str | None
    name: str
    total_bytes: int
    free_bytes: int | None


@dataclass(frozen=True)
class Choice:
    """A shipped profile, and in one sentence why."""

    name: str
    reason: str


def choose_profile(gpus: Sequence[Gpu]) -> Choice:
    """The shipped profile for these cards: by the total memory of the largest, or a pair of 24 GB."""
    if not gpus:
        return Choice(WITHOUT_GPU, "no GPU was found")
    ordered = sorted(gpus, key=lambda gpu: gpu.total_bytes, reverse=True)
    largest = ordered[0]
    single = next((name for floor, name in SIZES if largest.total_bytes >= floor * GIB), None)
    if single != SIZES[0][1] and len(ordered) > 1 and ordered[1].total_bytes >= PAIR_FLOOR * GIB:
        return Choice(PAIR, f"{_card(ordered[0])} and {_card(ordered[1])} were found")
    found = _card(largest) if len(ordered) == 1 else f"{_card(largest)} is the largest of {len(ordered)} GPUs"
    if single is None:
        return Choice(WITHOUT_GPU, f"{found}, less than the smallest GPU profile ({SIZES[-1][1]}) needs")
    return Choice(single, f"{found} was found" if len(ordered) == 1 else found)


def _card(gpu: Gpu) -> str:
    return f"{gpu.name} with {gpu.total_bytes / GIB:.1f} GiB"
