"""What the command line makes of its values, with and without the library that Typer validates them with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from llmctl.commands.values import take_plain_values

GIVEN = [
    ["--number", "7", "--real", "0.5", "--text", "seven", "--file", "a", "--file", "b"],
    ["--number", "1"],
    ["--real", "1e3"],
    ["--text", ""],
    [],
]
REFUSED = [["--number", "0"], ["--number", "x"], ["--number", "1.5"], ["--real", "nan"], ["--real", "-1"]]


def command(seen: list[Any]) -> Any:
    def verb(
        number: Annotated[int | None, typer.Option(min=1)] = None,
        real: Annotated[float | None, typer.Option(min=0)] = None,
        text: Annotated[str | None, typer.Option()] = None,
        file: Annotated[list[Path] | None, typer.Option()] = None,
    ) -> None:
        seen.append((number, real, text, file))

    # Annotations are names inside this function: Typer is given the objects.
    verb.__annotations__ = {
        "number": Annotated[int | None, typer.Option(min=1)],
        "real": Annotated[float | None, typer.Option(min=0)],
        "text": Annotated[str | None, typer.Option()],
        "file": Annotated[list[Path] | None, typer.Option()],
        "return": None,
    }
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(verb)
    return get_command(app)


@pytest.mark.parametrize("argv", GIVEN)
def test_plain_values_are_what_typer_makes_of_them(argv: list[str]) -> None:
    seen: list[Any] = []
    typers, ours = command(seen), command(seen)
    take_plain_values(ours)

    typers.main(args=argv, standalone_mode=False)
    ours.main(args=argv, standalone_mode=False)

    assert seen[0] == seen[1]
    assert [type(value) for value in seen[0]] == [type(value) for value in seen[1]]


@pytest.mark.parametrize("argv", REFUSED)
def test_wrong_values_are_refused_in_typers_words(argv: list[str]) -> None:
    typers, ours = command([]), command([])
    take_plain_values(ours)

    with pytest.raises(typer.BadParameter) as expected:
        typers.main(args=argv, standalone_mode=False)
    with pytest.raises(typer.BadParameter) as found:
        ours.main(args=argv, standalone_mode=False)

    assert found.value.format_message() == expected.value.format_message()


@pytest.mark.parametrize("argv", [["down"], ["ask", "--max-tokens", "8", "-f", "x", "hello"]])
def test_a_verb_imports_nothing_heavy(argv: list[str]) -> None:
    script = (
        "import sys; from llmctl.cli import main; main(sys.argv[1:]);"
        "print(sorted({'pydantic', 'httpx', 'yaml', 'rich', 'psutil', 'jsonschema', 'asyncio'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )

    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
