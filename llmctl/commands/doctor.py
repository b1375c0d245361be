"""doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, YesFlag
from llmctl.errors import ExitCode, UsageError
from llmctl.output import Output

if TYPE_CHECKING:
    from llmctl.core.checks.finding import Check
    from llmctl.env import Env
    from llmctl.workflows.doctor import Report
    from llmctl.workflows.gather import Given

WATCH_SECONDS = 5.0
# What a fact is asked with: it comes soon, or is unknown.
ANSWER_SECONDS = 3.0


def complete_checks() -> list[str]:
    from llmctl.core.checks.catalogue import CHECKS

    return sorted({check.id for check in CHECKS} | {check.family for check in CHECKS})


def doctor(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECK]...", help="Checks or families of them.", autocompletion=complete_checks),
    ] = None,
    list_checks: Annotated[
        bool, typer.Option("--list", help="List the checks; one that is named is shown in full.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every pinned blob, and make the model answer.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Run the remedies that are marked safe, then look again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="What guides get wrong, with this machine's numbers.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 5 s, until Ctrl-C.")] = False,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="Write an archive for a bug report.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="For an issue or a chat.")] = False,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Find what is wrong, and say the command that mends it.

    \b
    PRECONDITIONS
      None.
    \b
    SIDE EFFECTS
      None without --fix, --deep and --bundle. --fix runs only llmctl's own commands, and shows them first.
    \b
    EXIT CODES
      0 nothing is wrong, or only warnings
      4 no such check
      5 something is wrong; with --strict: or a warning
    \b
    EXAMPLE
      llmctl doctor
    """
    from llmctl.core.checks import catalogue

    env: Env = ctx.obj
    out = Output(env, json)
    require_one(json=json, markdown=markdown)
    # These go together, but with none of the three that are no single look.
    for name, asked in {"fix": fix, "bundle": bundle is not None, "deep": deep, "markdown": markdown}.items():
        require_one(list=list_checks, explain=explain, watch=watch, **{name: asked})
    checks = catalogue.chosen(tuple(names or ()), deep=deep or list_checks)
    if list_checks:
        return show_list(out, checks, in_full=bool(names) and {check.id for check in checks} == set(names or ()))
    if explain:
        return show_explained(out, profile)
    made = given(env, profile)
    if watch:
        keep_watching(out, made, checks)
    deep = deep or any(check.deep for check in checks)
    found = examined(out, made, checks, deep=deep, bundle=bundle)
    if fix and found.safe_commands:
        found = fixed(out, made, checks, found, yes, deep=deep)
    from llmctl.output import doctor as lines

    out.show(found, lines.markdown_lines if markdown else lines.report_lines)
    bad = found.verdict == "errors" or (strict and found.verdict == "warnings")
    return ExitCode.NO if bad else ExitCode.OK


def require_one(**options: bool) -> None:
    """UsageError where two of these options are given."""
    given_ones = [f"--{name}" for name, value in options.items() if value]
    if len(given_ones) > 1:
        raise UsageError(f"{' and '.join(given_ones)} exclude each other", "llmctl doctor --help")


def given(env: Env, profile: str | None) -> Given:
    from llmctl.client import Client
    from llmctl.workflows.gather import Given

    return Given(
        env.environ,
        env.server,
        env.engines,
        lambda url: Client(url, answer_seconds=ANSWER_SECONDS),
        env.library,
        lambda: env.profile(profile),
        env.lock_path,
    )


def examined(out: Output, made: Given, checks: tuple[Check, ...], *, deep: bool, bundle: Path | None) -> Report:
    """One look. A deep one says what it does, as it may take minutes."""
    from dataclasses import replace

    from llmctl.workflows import doctor as work

    if not deep:
        report, facts = work.look(made, checks, deep=False)
    else:
        with out.progress() as progress:
            made = replace(made, progress=progress)
            report, facts = work.look(made, checks, deep=True)
    if bundle is not None:
        from llmctl.output import plain
        from llmctl.workflows.bundle import write

        documents = {"report": plain(report), "facts": {"areas": plain(facts.areas), "missing": plain(facts.missing)}}
        written = write(bundle, documents, made)
        out.note(f"written: {written.path} ({written.size_bytes:,} bytes): read it before you send it")
    return report


def fixed(out: Output, made: Given, checks: tuple[Check, ...], found: Report, yes: bool, *, deep: bool) -> Report:
    from llmctl.workflows import doctor as work

    question = "run these: " + "; ".join(found.safe_commands) + "."
    with out.progress() as progress:
        out.consent(yes)(question)
        return work.fix(made, checks, found, progress, deep=deep)


def show_list(out: Output, checks: tuple[Check, ...], *, in_full: bool) -> ExitCode:
    from llmctl.output.doctor import about_lines, listing, listing_lines

    out.show(listing(checks), about_lines if in_full else listing_lines)
    return ExitCode.OK


def show_explained(out: Output, profile: str | None) -> ExitCode:
    from llmctl.library import lock_file
    from llmctl.output.explain import explained_lines
    from llmctl.workflows.explain import cards, explain

    chosen = out.env.profile(profile)
    lock = lock_file.read(out.env.lock_path(chosen))
    out.show(explain(out.env.server, chosen, lock, cards()), explained_lines)
    return ExitCode.OK


def keep_watching(out: Output, made: Given, checks: tuple[Check, ...]) -> None:
    """Look again and again until interrupted: NDJSON, or a screen that is drawn anew on a terminal."""
    import time
    from dataclasses import replace

    from llmctl.output.doctor import report_lines
    from llmctl.workflows import doctor as work

    clear = "\x1b[2J\x1b[H" if out.env.stdout.isatty() and not out.json else ""
    while True:
        report, _ = work.look(replace(made), checks, deep=False)
        if out.json:
            out.record(report)
        else:
            out.write(clear)
            out.show(report, report_lines)
            out.flush()
        time.sleep(WATCH_SECONDS)
