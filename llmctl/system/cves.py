"""The table of known faults that is shipped beside this module."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

from llmctl.core.cves import Table, table_of
from llmctl.errors import LlmctlError
from llmctl.system.files import read_bounded

FILE = Path(__file__).with_suffix(".yaml")
LARGEST_BYTES = 1 << 20


def table() -> Table:
    """LlmctlError where it cannot be read, or is not as it must be."""
    from llmctl.system.yaml_file import parse_yaml

    return table_of(parse_yaml(read_bounded(FILE, LARGEST_BYTES), FILE.name, LlmctlError).data)


def age_days(found: Table) -> int:
    """Whole days since the first of the month in which it was last looked for new rows: its age at the most."""
    return (datetime.now(timezone.utc).date() - date.fromisoformat(f"{found.read}-01")).days
