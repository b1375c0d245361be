"""A shell beside the unit that serves: what is different, and what of that misleads a person."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmctl.core.address import parse_host
from llmctl.core.serving import as_read
from llmctl.errors import LlmctlError

# What only a client reads, and what no screen should show.
CLIENTS = {"OLLAMA_NOHISTORY", "OLLAMA_EDITOR"}
SECRET = ("_KEY", "_TOKEN", "_PASSWORD")


@dataclass(frozen=True)
class Surroundings:
    """Who runs a program and what it sees. None where this user may not know.

    `ollama` is the program that runs, or that PATH has; `nodes` are the GPUs' device files that file permissions let it
    open; `devices` are the GPUs that the engine found, asked for only where a model is not proved.
    """

    user: str | None
    groups: tuple[str, ...] | None
    path: str | None
    ollama: str | None
    nodes: tuple[str, ...] | None
    devices: tuple[str, ...] | None


@dataclass(frozen=True)
class Difference:
    """`what` is user, groups, PATH, ollama, nodes, devices, or the name of a variable; lists are joined by a comma.

    None: it has none. Not every difference `matters`: the service of a machine has another user than any shell.
    """

    what: str
    unit: str | None
    shell: str | None
    matters: bool


@dataclass(frozen=True)
class Variables:
    """The variables of the unit's server; `complete` False where only those of its file are known."""

    values: Mapping[str, str]
    complete: bool


def differences(unit: Surroundings, shell: Surroundings, its: Variables, mine: Mapping[str, str]) -> list[Difference]:
    """What is known of both and is not the same."""
    found = [
        compared("user", unit.user, shell.user),
        compared("groups", joined(unit.groups), joined(shell.groups)),
        compared("PATH", unit.path, shell.path),
        compared("ollama", unit.ollama, shell.ollama, matters=True),
        alone("nodes", unit.nodes, shell.nodes),
        compared("devices", joined(unit.devices), joined(shell.devices), matters=True),
    ]
    return [*(one for one in found if one is not None), *of_variables(its, mine)]


def compared(what: str, unit: str | None, shell: str | None, *, matters: bool = False) -> Difference | None:
    return None if unit is None or shell is None or unit == shell else Difference(what, unit, shell, matters)


def joined(values: tuple[str, ...] | None) -> str | None:
    return None if values is None else ", ".join(values)


def alone(what: str, unit: tuple[str, ...] | None, shell: tuple[str, ...] | None) -> Difference | None:
    """What the one has and the other has not."""
    if unit is None or shell is None or set(unit) == set(shell):
        return None
    its = tuple(one for one in unit if one not in shell)
    mine = tuple(one for one in shell if one not in unit)
    # A card of NVIDIA's is used through its own files; those of /dev/dri beside them are for screens.
    nvidia = any("/nvidia" in one for one in (*unit, *shell))
    matters = not (nvidia and all("/renderD" in one for one in (*its, *mine)))
    return Difference(what, joined(its) or None, joined(mine) or None, matters)


def of_variables(its: Variables, mine: Mapping[str, str]) -> Iterator[Difference]:
    """Settings of Ollama in the shell that the server does not have: who exported them believes that they hold."""
    for name, value in sorted(mine.items()):
        if not name.startswith("OLLAMA_") or name in CLIENTS or name.endswith(SECRET):
            continue
        found = its.values.get(name)
        if found is None and not its.complete:
            continue
        if found is None or meant(name, found) != meant(name, value):
            yield Difference(name, found, value, matters=True)


def meant(name: str, value: str) -> str:
    """A value in one form, where it has several."""
    if name == "OLLAMA_MODELS":
        return os.path.normpath(as_read(value))
    if name != "OLLAMA_HOST":
        return as_read(value)
    try:
        return parse_host(value, name).url.replace("localhost", "127.0.0.1")
    except LlmctlError:
        return value
