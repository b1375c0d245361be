"""Options that several verbs share, each written once, and what a shell completes them with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_models(ctx: typer.Context) -> list[str]:
    """For `autocompletion=` of whatever takes a model's name."""
    from llmctl.commands.names import model_names

    return model_names(ctx)


def complete_profiles() -> list[str]:
    """For `autocompletion=` of whatever takes a profile."""
    from llmctl.commands.names import profile_names

    return profile_names()


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
OffloadFlag = Annotated[
    bool, typer.Option("--allow-offload", help="Accept a model of which a part lies in host memory.")
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Agree to downloads, builds and removals.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="PATH", help="The model folder. Default: the server's.")
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="A shipped profile's name, or a file. See: llmctl profiles",
        autocompletion=complete_profiles,
    ),
]
