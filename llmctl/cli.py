"""The command line: which verb is which function, and the one place where an error becomes an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from llmctl import __version__
from llmctl.commands.group import new_typer
from llmctl.commands.values import take_plain_values
from llmctl.env import Env
from llmctl.errors import ExitCode, LlmctlError, Refused, UsageError, WriteFailed
from llmctl.output import Output, plain

# verb -> module:attribute. A module is imported when its verb is used, or when all of them are listed.
COMMANDS = {
    "up": "llmctl.commands.lifecycle:up",
    "down": "llmctl.commands.lifecycle:down",
    "status": "llmctl.commands.status:status",
    "ask": "llmctl.commands.ask:ask",
    "pull": "llmctl.commands.models:pull",
    "list": "llmctl.commands.inventory:list_",
    "verify": "llmctl.commands.pins:verify",
    "repair": "llmctl.commands.pins:repair",
    "export": "llmctl.commands.transfer:export",
    "import": "llmctl.commands.transfer:import_",
    "push": "llmctl.commands.transfer:push",
    "rm": "llmctl.commands.models:rm",
    "prune": "llmctl.commands.prune:prune",
    "yield": "llmctl.commands.yielding:yield_",
    "guard": "llmctl.commands.guard:guard",
    "doctor": "llmctl.commands.doctor:doctor",
    "logs": "llmctl.commands.logs:logs",
    "install-service": "llmctl.commands.service:install_service",
    "uninstall-service": "llmctl.commands.service:uninstall_service",
    "engine": "llmctl.commands.engine:app",
    "profiles": "llmctl.commands.config:profiles",
    "init": "llmctl.commands.config:init",
    "fit": "llmctl.commands.fit:fit",
    "config": "llmctl.commands.config:config",
    "completion": "llmctl.commands.completion:completion",
}

# What the completion scripts call; the words on the command line follow.
COMPLETE = "__complete"


class LazyCommands(MutableMapping[str, Any]):
    """The verbs, each loaded at its first use."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load_command(name, COMMANDS[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LlmctlGroup(TyperGroup):
    """A group whose commands are imported when they are used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands()
        take_plain_values(self)

    def list_commands(self, _: Any) -> list[str]:
        # The base class walks the items, which would import every verb to answer for one.
        return list(COMMANDS)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer._click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        # Without their help, for the same reason.
        return [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]


def load_command(name: str, target: str) -> Any:
    module, attribute = target.split(":")
    verb: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(module), attribute)
    if isinstance(verb, typer.Typer):
        command = get_command(verb)
        command.name = name
    else:
        single = new_typer()
        single.command(name)(verb)
        command = get_command(single)
    take_plain_values(command)
    return command


app = new_typer(cls=LlmctlGroup, no_args_is_help=True)


@app.callback()
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Operate one local LLM server: pinned, resident on the GPU, proved.

    Start with: llmctl up
    """
    if version:
        typer.echo(f"llmctl {__version__}")
        raise typer.Exit


def main(argv: list[str], env: Env | None = None) -> int:
    """Run one command line; the exit code. The only place that catches, prints an error or decides a code."""
    env = env or Env()
    env.words = tuple(argv)
    if argv[:1] == [COMPLETE]:
        return complete(argv[1:], env)
    # What follows `--` belongs to somebody else.
    out = Output(env, json="--json" in (argv[: argv.index("--")] if "--" in argv else argv))
    try:
        code = answered(argv, env, out)
        out.flush()
        return code
    except BrokenPipeError:
        # The reader left (`| head -1`).
        discard_stdout()
        return ExitCode.PIPE
    except (KeyboardInterrupt, typer.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        out.interrupted()
        return ExitCode.INTERRUPTED
    except LlmctlError as error:
        if isinstance(error, WriteFailed):
            discard_stdout()
        out.error(error)
        return error.exit_code


def answered(argv: list[str], env: Env, out: Output) -> int:
    """Run one command line. A refusal is an answer: for scripts it is data, on stdout, with what it rests on."""
    try:
        return run(argv, env)
    except Refused as error:
        if not out.json:
            raise
        said = {"code": error.code, "message": error.message, "hint": error.hint}
        body = {"error": said, **(plain(error.document) or {})}
        if is_stream(argv):
            out.record(body)
        else:
            out.show(body, lambda _, __: [])
        return error.exit_code


def is_stream(argv: list[str]) -> bool:
    """Whether these words ask for documents of one line each."""
    guards = argv[:1] == ["guard"] and not {"--once", "--hold", "--resume"} & {*argv}
    return guards or (argv[:1] in (["status"], ["doctor"]) and "--watch" in argv)


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter's own flush at exit complains about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(argv: list[str], env: Env) -> int:
    from typer import TyperException
    from typer._click.exceptions import NoArgsIsHelpError

    group = get_command(app)
    try:
        # Not group.main(), which turns a broken pipe into a silent exit 1.
        with group.make_context("llmctl", list(argv), obj=env) as context:
            code = group.invoke(context)
    except typer.Exit as done:
        code = done.exit_code
    except NoArgsIsHelpError as help_text:
        env.stderr.write(f"{help_text.format_message()}\n")
        code = ExitCode.USAGE
    except TyperException as error:
        raise usage_error(error) from None
    return ExitCode.OK if code is None else int(code)


def complete(words: list[str], env: Env) -> int:
    """Candidates for a shell. Whatever goes wrong, it says nothing: a shell would write it into the prompt."""
    from llmctl.commands.completion import candidates

    try:
        env.stdout.writelines(f"{line}\n" for line in candidates(get_command(app), words or [""], env))
        env.stdout.flush()
    except (Exception, KeyboardInterrupt):
        return ExitCode.FAILED
    return ExitCode.OK


def usage_error(error: Any) -> UsageError:
    """A wrong command line, in the words of every other error."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "llmctl"
    return UsageError(error.format_message().rstrip("."), f"{path} --help")
