"""The table of known faults: what each row must have, and which releases it is about."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from llmctl.core.cves import table_of
from llmctl.errors import LlmctlError
from llmctl.system import cves

ROW = {
    "id": "CVE-2026-1",
    "what": "a pull deletes files",
    "reach": "network",
    "affected": "< 0.4.0",
    "fixed": "0.4.0",
    "source": "https://example.org/1",
    "read": "2026-08",
}


def test_every_row_of_the_shipped_table_is_as_it_must_be() -> None:
    table = cves.table()
    assert len(table.faults) >= 16
    for fault in table.faults:
        assert re.fullmatch(r"CVE-20\d\d-\d+|ollama [0-9a-f]{9}", fault.id)
        assert fault.read <= table.read
        assert len(fault.what.split()) > 2
        assert not fault.what.endswith(".")


def test_its_age_counts_from_the_first_of_its_month() -> None:
    assert cves.age_days(table_of({"read": "2020-01", "faults": [ROW]})) > 2000


@pytest.mark.parametrize(
    ("version", "some", "none"),
    [
        ("0.1.33", "CVE-2024-37032", "CVE-2024-28224"),
        ("0.1.46", "CVE-2024-45436", "CVE-2024-39720"),
        ("0.17.0", "CVE-2026-7482", "CVE-2025-51471"),
        ("0.17.1-rc1", "CVE-2026-7482", "CVE-2025-51471"),
        ("0.17.1-beta.2", "CVE-2026-7482", "CVE-2025-51471"),
        ("0.17.1", "CVE-2026-5530", "CVE-2026-7482"),
        # A packager's number, and a build of what follows the release.
        ("0.17.1-1", "CVE-2026-5530", "CVE-2026-7482"),
        ("0.17.1-12-g4138e853d", "CVE-2026-5530", "CVE-2026-7482"),
        ("0.20.2", "CVE-2026-7020", "CVE-2026-5530"),
        ("0.32.9", "ollama 4138e853d", "CVE-2026-7020"),
        ("0.3.14", "CVE-2025-0312", "CVE-2024-8063"),
    ],
)
def test_the_release_that_mends_a_fault_is_the_first_without_it(version: str, some: str, none: str) -> None:
    known = {each.id for each in cves.table().of(version) or ()}
    assert some in known
    assert none not in known


def test_no_fault_is_known_of_the_releases_that_llmctl_installs() -> None:
    for version in ("0.32.10", "0.32.10-1", "0.33.0", "0.34.0", "0.34.4"):
        assert cves.table().of(version) == ()


@pytest.mark.parametrize("version", ["unknown", "0.0.0", "v0.0.0", "0.0.0-dirty", ""])
def test_nothing_is_known_of_what_tells_no_version(version: str) -> None:
    assert cves.table().of(version) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reach", "nobody"),
        ("affected", "0.4.0"),
        ("affected", "< four"),
        ("fixed", "0.3.9"),
        ("fixed", "soon"),
        ("fixed", ""),
        ("source", "somewhere"),
        ("source", None),
        ("read", "August"),
        ("read", "2026-13"),
        ("what", " "),
        ("id", 7),
    ],
)
def test_a_row_that_says_nothing_sure_is_refused(name: str, value: object) -> None:
    assert table_of({"read": "2026-08", "faults": [ROW]}).faults
    with pytest.raises(LlmctlError, match=f"row 1 .*{name} is"):
        table_of({"read": "2026-08", "faults": [{**ROW, name: value}]})


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("read"),
        lambda table: table["faults"].clear(),
        lambda table: table["faults"].append(ROW),
        lambda table: table["faults"][0].pop("source"),
        lambda table: table["faults"][0].update(more="x"),
        lambda table: table.update(read="today"),
    ],
)
def test_a_table_with_too_little_or_too_much_is_refused(change: Any) -> None:
    table = copy.deepcopy({"read": "2026-08", "faults": [ROW]})
    change(table)
    with pytest.raises(LlmctlError, match="known faults"):
        table_of(table)
