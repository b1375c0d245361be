"""Whether a remedy's command can be run as it is typed: a shell takes it, and so do llmctl and the system's programs.

Of a program that is installed here, verbs and options are looked up in its own --help, so that one that is mistyped, or
that another version has, fails. Of one that is not, they stand in ELSEWHERE, from its manual. How many operands each
takes, and what stands behind an option that wants a value, is in SHAPES.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from typer._click.exceptions import UsageError

from llmctl.cli import COMMANDS, load_command

# Programs of every Linux with systemd, that a remedy may call besides llmctl, and how each is asked for its help.
HELP = {
    **{
        name: (name, "--help")
        for name in (
            *("systemctl", "journalctl", "loginctl", "usermod", "reboot", "dmesg", "mount", "findmnt", "lsblk"),
            *("ss", "lsof", "id", "chmod", "chown", "df", "du", "rm", "mv", "ls", "install", "getent", "seq"),
        )
    },
    "ps": ("ps", "--help", "all"),
    "curl": ("curl", "--help", "all"),
    "docker": ("docker", "ps", "--help"),
}
# nvidia-smi(1), nvidia-modprobe(1), `nvidia-ctk runtime configure --help`, modprobe(8), ollama v0.34.0 cmd/cmd.go,
# learn.microsoft.com/windows/wsl/basic-commands.
ELSEWHERE: dict[str, set[str]] = {
    "nvidia-smi": {
        *("--query", "--display", "--query-gpu", "--format", "--id", "--gpu-reset", "--persistence-mode"),
        *("--power-limit", "--multi-instance-gpu"),
    },
    "nvidia-modprobe": {"-u", "-c"},
    "nvidia-ctk": {"--runtime"},
    "modprobe": {"--remove"},
    "ollama": {"--version"},
    "wsl.exe": {"--shutdown"},
}
VERBS = {
    "nvidia-ctk": {"runtime"},
    "ollama": {"serve", "ps", "--version"},
    "docker": {"ps"},
}
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z0-9][\w-]*")
NAME = re.compile(r"[A-Za-z_]\w*")
MODE = re.compile(r"[ugoa]*[-+=][rwxXst]+(,[ugoa]*[-+=][rwxXst]+)*|[0-7]{3,4}")
UNIT = re.compile(r"[\w@.:-]+\.(service|target)|docker")
USER = re.compile(r"[A-Za-z_][\w.-]*")
OWNER = re.compile(r"[A-Za-z_][\w.-]*(:[\w.-]*)?")
LIST = re.compile(r"[\w.%+-]+(=[\w.-]+)?(,[\w.%+-]+(=[\w.-]+)?)*")
NUMBER = re.compile(r"\d+")
FOLDER = re.compile(r"/.*")
# What takes no unit behind its verb.
WITHOUT_UNIT = frozenset({"daemon-reload", "reboot", "poweroff"})


@dataclass(frozen=True)
class Shape:
    """How many operands a program takes (`most` None: any number), what the first of them is, and what stands behind
    the options that want a value."""

    least: int
    most: int | None
    values: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    first: re.Pattern[str] | None = None


SHAPES = {
    "systemctl": Shape(1, None),
    "loginctl": Shape(2, None),
    "journalctl": Shape(
        0, 0, {**dict.fromkeys(("-u", "--unit", "--user-unit"), UNIT), **dict.fromkeys(("-n", "--lines"), NUMBER)}
    ),
    "usermod": Shape(1, 1, {"--groups": LIST}, USER),
    "reboot": Shape(0, 0),
    "dmesg": Shape(0, 0, {"--level": LIST}),
    "mount": Shape(1, 2, {"-o": LIST}, FOLDER),
    "findmnt": Shape(0, 2, {"--target": FOLDER}),
    "lsblk": Shape(0, None, {"-o": LIST}),
    "ss": Shape(0, None),
    "lsof": Shape(0, None),
    "id": Shape(0, None),
    "chmod": Shape(2, None, first=MODE),
    "chown": Shape(2, None, first=OWNER),
    "df": Shape(0, None),
    "du": Shape(0, None),
    "rm": Shape(1, None),
    "mv": Shape(2, None),
    "ls": Shape(0, None),
    "install": Shape(1, None, {"-o": USER, "-g": USER, "-m": MODE}),
    "getent": Shape(1, None),
    "seq": Shape(1, 3),
    "ps": Shape(0, 0, {"-o": LIST, "-eo": LIST, "-p": LIST}),
    "curl": Shape(1, 1, {"--max-time": NUMBER}, re.compile(r"https?://\S+")),
    "docker": Shape(1, 1, {"--filter": LIST}),
    "nvidia-smi": Shape(
        *(0, 0),
        {
            **dict.fromkeys(("--display", "--query-gpu", "--format"), LIST),
            **dict.fromkeys(("--id", "--persistence-mode", "--power-limit", "--multi-instance-gpu"), NUMBER),
        },
    ),
    "nvidia-modprobe": Shape(0, 0, {"-c": NUMBER}),
    "nvidia-ctk": Shape(2, 2, {"--runtime": USER}),
    "modprobe": Shape(1, None),
    "ollama": Shape(0, 1),
    "wsl.exe": Shape(0, 0),
}


@cache
def parses(command: str) -> None:
    """Fails where it cannot be run as it is typed."""
    said = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    assert said.returncode == 0, f"{command}: {said.stderr}"
    # A pipe is one command to who types it; what would run another one besides is not.
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    stages: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            stages.append([])
        else:
            assert not set(word) <= set("();<>|&"), f"{command}: more than one command"
            stages[-1].append(word)
    for stage in stages:
        parses_alone(stage)


def parses_alone(typed: Sequence[str]) -> None:
    words = without_environment(typed)
    assert words, typed
    program, arguments = PurePath(words[0]).name, words[1:]
    if program == "llmctl":
        parses_as_llmctl(arguments)
    elif program in {"export", "unset"}:
        assert arguments, typed
        assert all(NAME.fullmatch(each.partition("=")[0]) for each in arguments), typed
        assert program == "unset" or all("=" in each for each in arguments), typed
    elif program == "kill":
        parses_as_kill(arguments)
    else:
        parses_as_program(program, arguments)


def without_environment(words: Sequence[str]) -> list[str]:
    """The program and its arguments, whoever is to run it, and with which variables."""
    left = list(words)
    if left[:1] == ["sudo"]:
        left = left[1:]
        assert left, "nothing behind sudo"
        assert not left[0].startswith("-"), left
    if left[:1] == ["env"]:
        left = left[1:]
    while left and "=" in left[0]:
        assert NAME.fullmatch(left[0].partition("=")[0]), left[0]
        left = left[1:]
    if left[:1] == ["$(command -v llmctl)"]:
        left[0] = "llmctl"
    return left


def parses_as_llmctl(arguments: Sequence[str]) -> None:
    assert arguments, "llmctl alone is no remedy"
    if list(arguments) == ["--version"]:
        return
    verb, rest = arguments[0], list(arguments[1:])
    assert verb in COMMANDS, f"llmctl has no {verb}"
    at: Any = load_command(verb, COMMANDS[verb])
    while hasattr(at, "commands"):
        assert rest, f"llmctl {verb} needs a verb of its own"
        assert rest[0] in at.commands, f"llmctl {verb} has no {rest[0]}"
        at, rest = at.commands[rest[0]], rest[1:]
    # parse_args refuses what the verb does not take.
    try:
        at.make_context(verb, rest, resilient_parsing=False).close()
    except UsageError as error:
        raise AssertionError(f"llmctl {shlex.join(arguments)}: {error.format_message()}") from error


def parses_as_kill(arguments: Sequence[str]) -> None:
    """The shell's own: a signal and process numbers."""
    left = list(arguments)
    if left and left[0].startswith("-"):
        name = left.pop(0)[1:]
        assert name.isdigit() or f"SIG{name}" in signal.Signals.__members__, f"{name} is no signal"
    assert left, "kill needs a process"
    assert all(each.isdigit() for each in left), left


def parses_as_program(program: str, arguments: Sequence[str]) -> None:
    assert program in HELP or program in ELSEWHERE, f"{program} is no program that a remedy may call"
    known = options_of(program)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for each in arguments[:end] if known is not None else ():
        if each.startswith("-") and len(each) > 1:
            assert is_option(each, known or frozenset()), f"{program} takes no {each}"
    plain = operands_of(program, arguments)
    if program in VERBS:
        assert arguments, program
        assert arguments[0] in VERBS[program], f"{program} has no {arguments[0]}"
    if program in {"systemctl", "loginctl"}:
        parses_as_manager(program, plain)
    if program == "getent" and installed(program):
        assert re.search(rf"\b{re.escape(plain[0])}\b", help_of(program).partition("databases:")[2]), plain[0]
    if program in {"ps", "lsblk"} and installed(program):
        parses_columns(program, arguments)


def operands_of(program: str, arguments: Sequence[str]) -> list[str]:
    """What is no option and no value of one. Fails where that is too little or too much, or a value is not right."""
    shape, left, found = SHAPES[program], list(arguments), []
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            found += left
            break
        if not word.startswith("-"):
            found.append(word)
        elif name in shape.values:
            assert equals or left, f"{program} {name} needs a value"
            value = value if equals else left.pop(0)
            assert shape.values[name].fullmatch(value), f"{program} {name} takes no {value}"
    assert len(found) >= shape.least, f"{program} needs {shape.least} operands: {found}"
    assert shape.most is None or len(found) <= shape.most, f"{program} takes {shape.most} operands: {found}"
    assert not found or shape.first is None or shape.first.fullmatch(found[0]), f"{program} takes no {found[0]}"
    return found


def parses_as_manager(program: str, plain: Sequence[str]) -> None:
    """systemctl's and loginctl's verbs; behind most of systemctl's stands a unit."""
    if installed(program):
        assert plain[0] in re.findall(r"^  ([a-z][a-z-]+)", help_of(program), re.MULTILINE), f"no verb {plain[0]}"
    if program == "systemctl" and plain[0] in WITHOUT_UNIT:
        assert not plain[1:], f"systemctl {plain[0]} takes no {plain[1:]}"
    elif program == "systemctl":
        assert plain[1:], f"systemctl {plain[0]} needs a unit"
        assert all(UNIT.fullmatch(each) for each in plain[1:]), plain


def parses_columns(program: str, arguments: Sequence[str]) -> None:
    listed = output_of(("ps", "L")) if program == "ps" else help_of(program)
    known = {line.split()[0] for line in listed.splitlines() if line.split()}
    for option, value in pairwise(arguments):
        if re.fullmatch(r"-[a-z]*o", option):
            assert set(value.split(",")) <= known, f"{program} has no columns {set(value.split(',')) - known}"


def is_option(word: str, known: frozenset[str]) -> bool:
    """Whether it is one of these, with a value behind `=`, or short ones behind one dash."""
    name = word.partition("=")[0]
    return name in known or (not name.startswith("--") and all(f"-{letter}" in known for letter in name[1:]))


def options_of(program: str) -> frozenset[str] | None:
    """What it takes; None where it is not here and nothing is written down of it."""
    if program in ELSEWHERE:
        return frozenset(ELSEWHERE[program])
    return frozenset(OPTION.findall(help_of(program))) if installed(program) else None


def installed(program: str) -> bool:
    """Whether it is where help_of calls it; a test may have put another one before it on PATH."""
    return shutil.which(program, path=PLAIN["PATH"]) is not None


@cache
def help_of(program: str) -> str:
    return output_of(HELP[program])


def output_of(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, env=dict(PLAIN)
    )
    return done.stdout + done.stderr


PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "SYSTEMD_PAGER": ""}
