"""The table of an engine's known faults: what a row must have, and which of them a release has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from llmctl.core.engine import version_key
from llmctl.errors import LlmctlError

Reach = Literal["network", "model"]
MONTH = re.compile(r"20\d\d-(0[1-9]|1[0-2])")
AFFECTED = re.compile(r"(<=?) (\S+)")
# What an Ollama says that was built without its version (ollama v0.34.0 version/version.go).
UNSAID = (0, 0, 0)


@dataclass(frozen=True)
class Fault:
    """One row. `affected` is `< X` or `<= X`; `fixed` the first release without it, None where the source names none.
    `reach`: network, whoever may send a request; model, whoever makes a model that is pulled or created here. `read`
    is the month (2026-08) in which the source was read."""

    id: str
    what: str
    reach: Reach
    affected: str
    fixed: str | None
    source: str
    read: str


@dataclass(frozen=True)
class Table:
    """`read` is the month in which somebody last looked for new rows."""

    read: str
    faults: tuple[Fault, ...]

    def of(self, version: str) -> tuple[Fault, ...] | None:
        """What the release `version` has; None for what is no version, or says none."""
        key = version_key(version)
        if key is None or key[:3] == UNSAID:
            return None
        return tuple(fault for fault in self.faults if is_among(version, fault.affected))


def is_among(version: str, affected: str) -> bool:
    """Whether a release is one of the affected. A pre-release comes before its release."""
    match, own = AFFECTED.fullmatch(affected), version_key(version)
    bound = version_key(match[2]) if match else None
    if match is None or own is None or bound is None:
        raise LlmctlError(f"{version} and {affected!r} cannot be compared")
    return own < bound or (own == bound and match[1] == "<=")


def table_of(document: object) -> Table:
    """The table as its file has it. LlmctlError names the first row that is not as it must be."""
    if not isinstance(document, dict) or set(document) != {"read", "faults"} or not is_month(document["read"]):
        raise LlmctlError("the table of known faults needs `read`, a month, and `faults`")
    rows = document["faults"]
    if not isinstance(rows, list) or not rows:
        raise LlmctlError("the table of known faults has no rows")
    faults = tuple(fault_of(row, number) for number, row in enumerate(rows, 1))
    if len({fault.id for fault in faults}) < len(faults):
        raise LlmctlError("the table of known faults names one of them twice")
    return Table(document["read"], faults)


def fault_of(row: object, number: int) -> Fault:
    wanted = [field.name for field in fields(Fault)]
    if not isinstance(row, dict) or set(row) != set(wanted):
        raise LlmctlError(f"row {number} of the table of known faults needs {', '.join(wanted)}")
    for name in wanted:
        if not is_right(name, row):
            raise LlmctlError(f"row {number} of the table of known faults ({row['id']}): {name} is {row[name]!r}")
    return Fault(**row)


def is_right(name: str, row: Mapping[str, Any]) -> bool:
    """Whether what a row says there can be taken; what stands before it in the row was found right."""
    value = row[name]
    if name == "fixed" and value is None:
        return True
    if not isinstance(value, str) or not value.strip():
        return False
    if name == "reach":
        return value in get_args(Reach)
    if name == "affected":
        return (match := AFFECTED.fullmatch(value)) is not None and version_key(match[2]) is not None
    if name == "fixed":
        return version_key(value) is not None and not is_among(value, row["affected"])
    if name == "source":
        return value.startswith("https://")
    return is_month(value) if name == "read" else True


def is_month(value: object) -> bool:
    return isinstance(value, str) and MONTH.fullmatch(value) is not None
