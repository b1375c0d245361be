"""What NVIDIA's driver means by the numbers that it writes into the kernel's log."""

from __future__ import annotations

from dataclasses import dataclass

FALLEN_OFF_THE_BUS = 79


@dataclass(frozen=True)
class Meaning:
    """`program`: a program's own fault can be the cause, and the card goes on."""

    words: str
    program: bool = False


# NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors), in words of our own.
MEANINGS = {
    13: Meaning("a graphics engine exception: a program read or wrote where it must not, or the card is faulty", True),
    31: Meaning("a page fault in the card's memory: a program read or wrote where it must not", True),
    43: Meaning("the GPU stopped working for one program, which was ended", True),
    45: Meaning("one program's work was removed from the card, after another error or because it was ended", True),
    48: Meaning("an ECC error of two bits in the card's memory, which cannot be corrected"),
    61: Meaning("a warning of the card's own microcontroller"),
    62: Meaning("the card's own microcontroller has halted"),
    63: Meaning("a faulty place of the card's memory was taken out of use; the card wants a reset"),
    64: Meaning("a faulty place of the card's memory could not be taken out of use"),
    69: Meaning("a graphics engine error: a program's command was wrong, or the card is faulty", True),
    74: Meaning("an error of NVLink between two cards"),
    79: Meaning("the GPU has fallen off the bus: power, slot, riser or heat"),
    92: Meaning("many ECC errors of one bit"),
    94: Meaning("an ECC error in the card's memory that was kept to one program, which was ended"),
    95: Meaning("an ECC error that may have spoiled the work of every program"),
    109: Meaning("a program's turn on the card did not end in time", True),
    119: Meaning("the card's system processor (GSP) did not answer the driver in time"),
    120: Meaning("an error in the card's system processor (GSP)"),
}


def meaning(code: int) -> Meaning:
    return MEANINGS.get(code, Meaning("not one of the well known reports: NVIDIA's catalogue of Xid errors has it"))
