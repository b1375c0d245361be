"""What `doctor` looks like."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.output.text import pairs

if TYPE_CHECKING:
    from llmctl.core.checks.finding import Check
    from llmctl.workflows.doctor import Found, Report


def report_lines(report: Report, width: int) -> list[str]:
    lines: list[str] = []
    for fixed in report.fixed:
        lines.append(f"ran: {fixed.command} (exit {fixed.code})")
    for found in report.findings:
        lines += [*finding_lines(found, width), ""]
    return [*lines, *textwrap.wrap(summary(report), width)]


def finding_lines(found: Found, width: int) -> list[str]:
    subject = f" ({found.subject})" if found.subject else ""
    rows = [
        ("expected", found.expected),
        ("observed", found.observed),
        *(("evidence" if number == 0 else "", line) for number, line in enumerate(found.evidence)),
        ("helps", found.remedy.text),
        *(("run" if number == 0 else "", command) for number, command in enumerate(found.remedy.commands)),
        ("more", f"llmctl doctor --list {found.id}"),
    ]
    head = textwrap.wrap(f"{found.severity}  {found.id}: {found.title}{subject}", width, subsequent_indent="  ")
    return [*head, *(f"  {line}" for line in pairs(rows, width - 2))]


def summary(report: Report) -> str:
    every = report.ok + len(report.unknown) + len(report.skipped) + len({found.id for found in report.findings})
    parts = [
        f"{every} checks in {report.took_seconds:.1f} s: {report.ok} in order",
        *(
            f"{count} {word}{'' if count == 1 else 's'}"
            for word, count in (("error", report.count("error")), ("warning", report.count("warning")))
            if count
        ),
        *([f"{report.count('info')} for information"] if report.count("info") else []),
        *([f"{len(report.skipped)} not looked at because of these"] if report.skipped else []),
        *([f"{len(report.unknown)} unknown (--json says why)"] if report.unknown else []),
    ]
    fixable = len(report.safe_commands)
    tail = f". --fix would run {fixable} command{'' if fixable == 1 else 's'}" if fixable and not report.fixed else ""
    return ", ".join(parts) + tail


def markdown_lines(report: Report, _: int) -> list[str]:
    """For an issue or a chat."""
    lines = [f"**llmctl doctor**: {summary(report)}", ""]
    for found in report.findings:
        subject = f" ({code(found.subject)})" if found.subject else ""
        lines += [
            f"### {found.severity}: {found.title}{subject}",
            "",
            f"- check: [{found.id}]({found.link})",
            f"- expected: {found.expected}",
            f"- observed: {found.observed}",
            *(f"- evidence: {code(line)}" for line in found.evidence),
            f"- helps: {found.remedy.text}",
            *(["", "```sh", *found.remedy.commands, "```"] if found.remedy.commands else []),
            "",
        ]
    return lines


def code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"


@dataclass(frozen=True)
class Listed:
    """One check as `doctor --list` shows it."""

    id: str
    title: str
    severity: str
    about: str
    after: tuple[str, ...]
    deep: bool

    @property
    def words(self) -> str:
        return f"{self.title} ({self.severity}{', with --deep' if self.deep else ''})"


@dataclass(frozen=True)
class Listing:
    checks: tuple[Listed, ...]


def listing(checks: Sequence[Check]) -> Listing:
    return Listing(
        tuple(Listed(check.id, check.title, check.severity, check.about, check.after, check.deep) for check in checks)
    )


def listing_lines(found: Listing, width: int) -> list[str]:
    return pairs([(one.id, one.words) for one in found.checks], width)


def about_lines(found: Listing, width: int) -> list[str]:
    """What docs/checks.md says of them, for who has no checkout."""
    lines: list[str] = []
    for one in found.checks:
        after = (
            f"Not told while one of these has a finding at least as bad: {', '.join(one.after)}." if one.after else ""
        )
        parts = [f"{one.id}: {one.words}", one.about, after]
        lines += [line for part in parts if part for line in (*textwrap.wrap(part, width), "")]
    return lines[:-1]
