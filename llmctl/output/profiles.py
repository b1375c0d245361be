"""What `profiles`, `init` and `config` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import pairs

if TYPE_CHECKING:
    from llmctl.workflows.profiles import Initialised, Listed, Profiles
    from llmctl.workflows.settings import Setting, Settings

ACTIVE = "*"
TITLES = {"shipped": "shipped with llmctl", "own": "your own", "system": "the system's"}


def profiles_lines(found: Profiles, width: int) -> list[str]:
    lines: list[str] = []
    for origin, title in TITLES.items():
        group = [one for one in found.profiles if one.origin == origin]
        if group:
            labelled = [(f"{ACTIVE if one.active else ' '} {one.reference}", summary(one)) for one in group]
            lines += [title, *pairs(labelled, width), ""]
    if found.active is None:
        return [*lines, "none is active yet; to choose by this machine's GPUs: llmctl init"]
    return [*lines, f"{ACTIVE} active: {found.active}, from {found.chosen_by}"]


def summary(one: Listed) -> str:
    if one.problem is None:
        return one.description or ", ".join(one.models)
    first, _, more = one.problem.replace(f"{one.reference}:", "line ").partition("\n")
    return f"not usable: {first}{' ...' if more else ''}"


def init_lines(done: Initialised, _: int) -> list[str]:
    if done.content is not None:
        return done.content.splitlines()
    return [f"{done.state}: {done.path}, from the profile {done.profile} ({done.reason})"]


def config_lines(found: Settings, width: int) -> list[str]:
    lines = [f"profile: {found.profile}"]
    for title, settings in (("folders", found.folders), ("files", found.files), ("settings", found.settings)):
        lines += ["", title, *setting_lines(settings, width)]
    return lines


def setting_lines(settings: tuple[Setting, ...], width: int) -> list[str]:
    return pairs([(f"  {one.name}", f"{value_text(one.value)}  ({one.source})") for one in settings], width)


def value_text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
