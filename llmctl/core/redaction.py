"""What must not leave the machine in a bug report: keys, passwords, prompts, names of people and machines, serials.

Two rules, one behind the other. Of structured facts, a field whose name says that it holds a secret or a command line
loses its value. Of every text that is left, what looks like a secret is replaced, and so are the names given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.core.proxy import has_password, without_credentials

REMOVED = "[removed]"
# Accounts that every machine has, or that an installer makes: they name nobody.
COMMON_USERS = frozenset({"root", "nobody", "llmctl", "ollama", "daemon"})
SECRET_NAME = re.compile(r"key|token|secret|pass|auth|cookie|credential|bearer", re.IGNORECASE)
USER_FIELDS = frozenset({"user", "owner"})
COMMAND_FIELDS = frozenset({"command", "argv", "runner_argv", "program"})
# Of an IPv6 address; `::1` is this machine.
GROUP = "[0-9a-f]{1,4}"
PATTERNS = (
    (re.compile(r"(?P<name>--?[\w-]*(?:key|token|secret|pass)[\w-]*[= ])\S+", re.IGNORECASE), rf"\g<name>{REMOVED}"),
    (re.compile(r"(?P<name>\b\w*(?:KEY|TOKEN|SECRET|PASSWORD)\w*=)\S+"), rf"\g<name>{REMOVED}"),
    (re.compile(r"(?P<name>\b(?:Bearer|Basic) )\S+", re.IGNORECASE), rf"\g<name>{REMOVED}"),
    # Keys by their usual beginnings; a digest (64 hex digits) names a model and stays.
    (re.compile(r"\b(?:sk|pk|hf|gsk|gh[a-z]|github_pat|glpat|xox[a-z]|llmctl)[-_][A-Za-z0-9_-]{12,}"), REMOVED),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), REMOVED),
    # NVML's UUIDs of cards and MIG devices, and MAC addresses
    (re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE), REMOVED),
    (re.compile(r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b", re.IGNORECASE), REMOVED),
    (re.compile(r"\b(?!127\.|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}\b"), "[address]"),
    (
        re.compile(rf"(?<![\w:])(?:(?:{GROUP}:){{7}}{GROUP}|(?:{GROUP}:){{1,6}}(?::{GROUP})+)(?![\w:])", re.I),
        "[address]",
    ),
)


@dataclass(frozen=True)
class Names:
    """What names this machine and its people. `homes`: folders, each with what stands for it."""

    host: str
    users: tuple[str, ...]
    homes: Mapping[str, str]


def redacted(value: Any, names: Names, field: str = "") -> Any:
    """The same data without what must not leave the machine."""
    if isinstance(value, Mapping):
        return {
            text(str(key), names): REMOVED if is_secret(str(key), item) else redacted(item, names, str(key))
            for key, item in value.items()
        }
    if field in COMMAND_FIELDS and not isinstance(value, Mapping):
        return _program(value, names)
    if isinstance(value, (list, tuple)):
        return [redacted(item, names, field) for item in value]
    if isinstance(value, str):
        if field in USER_FIELDS and value not in COMMON_USERS:
            return "[user]" if value else value
        return text(value, names)
    return value


def is_secret(name: str, value: Any) -> bool:
    """Whether a field's name says that its text is a secret, or it is a proxy that has one."""
    return (
        isinstance(value, str) and value != "" and (SECRET_NAME.search(name) is not None or has_password(name, value))
    )


def _program(value: Any, names: Names) -> Any:
    """Of a command line only the program: what follows may be anybody's."""
    words = value.split() if isinstance(value, str) else list(value or ())
    if not words:
        return value
    return text(f"{words[0]}{' …' if len(words) > 1 else ''}", names)


def text(given: str, names: Names) -> str:
    """A text without secrets and names."""
    given = without_credentials(given, REMOVED)
    for pattern, instead in PATTERNS:
        given = pattern.sub(instead, given)
    for home, instead in sorted(names.homes.items(), key=lambda pair: -len(pair[0])):
        if len(home) > 1:
            given = given.replace(home, instead)
    for word, instead in _words(names):
        given = re.sub(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", instead, given)
    return given


def _words(names: Names) -> Iterable[tuple[str, str]]:
    if names.host and names.host != "localhost":
        yield names.host, "[host]"
        yield names.host.partition(".")[0], "[host]"
    for user in names.users:
        if user not in COMMON_USERS:
            yield user, "[user]"
