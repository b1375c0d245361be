"""completion: scripts for the shells, and the candidates that these ask for at each Tab."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmctl.errors import ExitCode
from llmctl.output import Output

if TYPE_CHECKING:
    from llmctl.env import Env

SCRIPTS = Path(__file__).parents[1] / "output" / "completion"


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Which shell.")],
) -> ExitCode:
    """Print the completion script of a shell.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      None. The script goes to stdout.
    \b
    EXIT CODES
      0 printed
    \b
    EXAMPLE
      source <(llmctl completion bash)
    """
    env: Env = ctx.obj
    Output(env).write((SCRIPTS / f"llmctl.{shell}").read_text("utf-8"))
    return ExitCode.OK


def candidates(group: Any, words: list[str], env: Env) -> list[str]:
    """What the last of `words` may become: one candidate a line, then a tab and what it means, where that is known.

    `words` are those after `llmctl`, the last one being typed (empty when it is not begun).
    """
    from typer._click.shell_completion import CompletionItem, ShellComplete

    class Lines(ShellComplete):
        name = "lines"

        def source_vars(self) -> dict[str, Any]:
            return {}

        def get_completion_args(self) -> tuple[list[str], str]:
            return words[:-1], words[-1]

        def format_completion(self, item: CompletionItem) -> str:
            return f"{prefix}{item.value}\t{item.help}" if item.help else f"{prefix}{item.value}"

    option, equals, _ = words[-1].partition("=")
    prefix = f"{option}=" if equals and option.startswith("--") else ""
    return Lines(group, {"obj": env}, "llmctl", "").complete().splitlines()
