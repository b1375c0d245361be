"""How units are written and read back: sections, variables, command lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Only a file that begins so is replaced or removed.
MARK = "# Written by `llmctl install-service`."


def unit(sections: Mapping[str, Sequence[str]]) -> str:
    """A unit file; every one begins with the mark."""
    blocks = ["\n".join([f"[{name}]", *lines]) for name, lines in sections.items() if lines]
    return "\n\n".join([MARK, *blocks]) + "\n"


def environment_line(name: str, value: str) -> str:
    """`Environment="NAME=value"` as systemd reads it back."""
    inside = f"{name}={value}".replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'Environment="{inside}"'


def environment_of(text: str) -> dict[str, str]:
    """The variables that a unit which llmctl wrote gives its service."""
    found = {}
    for line in text.splitlines():
        if line.startswith('Environment="') and line.endswith('"'):
            inside = line[len('Environment="') : -1]
            name, _, value = inside.replace("%%", "%").replace('\\"', '"').replace("\\\\", "\\").partition("=")
            found[name] = value
    return found


def command(words: Sequence[str]) -> str:
    """A command line of a unit: each word as it is, whatever systemd would make of it."""
    return " ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    plain = escaped(word).replace("$", "$$")
    if word and not set(word) & set(" \t\"'\\;"):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escaped(text: str) -> str:
    """Without the percent signs that systemd would expand."""
    return text.replace("%", "%%")
