"""Values of the command line, without the library that Typer validates them with.

Typer 0.29 builds a pydantic adapter for each parameter, also for one that nobody gave, and importing pydantic
takes longer than the rest of a command. What is plainly valid is taken here; everything else goes Typer's way,
so that errors read as they always do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin


class PlainValue:
    """Stands where Typer keeps a parameter's coercion (typer/core.py: get_runtime_param)."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        annotation = param.type_descriptor.annotation
        limits = param.type_descriptor.parameter_info
        items = list(value) if several else [value]
        kind = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        taken = [plain(item, kind, limits.min, limits.max) for item in items]
        if any(item is None for item in taken):
            param._runtime_param = None
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
        return taken if several else taken[0]


def plain(text: Any, kind: Any, least: float | None, most: float | None) -> Any:
    """`text` as `kind`, or None where that is not plainly right."""
    if not isinstance(text, str):
        return None
    if kind is str:
        return text
    if kind is Path:
        return Path(text)
    if kind not in (int, float):
        return None
    try:
        number = kind(text)
    except ValueError:
        return None
    # Written so that NaN, which compares with nothing, is not taken.
    fits = (least is None or number >= least) and (most is None or number <= most)
    return number if fits and number == number else None


def take_plain_values(command: Any) -> None:
    """Let the parameters of a command, or of a group's commands, take plain values without pydantic."""
    given = command.get_params

    def get_params(ctx: Any) -> Any:
        # Asked for late, because Typer makes the parameter of `--help` only when a command line is read.
        params = given(ctx)
        for param in params:
            if getattr(param, "_runtime_param", param) is None and not has_rules(param.type_descriptor):
                param._runtime_param = PlainValue()
        return params

    command.get_params = get_params
    if type(inner := getattr(command, "commands", None)) is dict:
        for each in inner.values():
            take_plain_values(each)


def has_rules(described: Any) -> bool:
    """Whether a parameter asks for more than its type: a parser of its own, or something of a path."""
    info = described.parameter_info
    wanted = (info.parser, info.exists, info.resolve_path, info.allow_dash, info.path_type)
    return any(wanted) or not (info.file_okay and info.dir_okay)
