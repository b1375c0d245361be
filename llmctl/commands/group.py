"""How every group of verbs is made."""

from __future__ import annotations

from typing import Any

import typer


def new_typer(**settings: Any) -> typer.Typer:
    """A Typer whose help is plain text: it pastes well and needs no Rich."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, **settings)
