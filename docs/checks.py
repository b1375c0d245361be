"""docs/checks.md: every check of doctor as it stands in the code, with the tests that provoke it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from llmctl.core.checks.catalogue import CHECKS
from llmctl.core.checks.finding import Check

CHECKOUT = Path(__file__).resolve().parent.parent
TESTS = "tests/doctor"
INTRODUCTION = """\
# What doctor looks at

This page is generated from the checks and from the tests in `tests/doctor`; `make docs` writes it. What it says
of a check, `llmctl doctor --list CHECK` shows in the terminal.

`llmctl doctor` gathers every fact once and then looks at all of them. A check answers "in order", with a finding, or
"unknown", which is never taken for either. Where a finding explains others, those are not told of: they are named in
the document of `--json` under `skipped`. A warning hides no error in that way, unless somebody asked for what it says
(`llmctl down`, `llmctl guard --hold`). An error makes the exit code 5, a warning does so with `--strict`, and what is
for information never does.

Each check is proved by a test that makes its condition happen to a real server, a real file, a real unit or the
scripted NVIDIA driver. Where that cannot be had, the condition is put in by hand, and this page says so.

"""
WORDS = {"error": "Error", "warning": "Warning", "info": "Information"}


def proofs() -> Iterator[tuple[str, str, str]]:
    """(check, test, why it is put in by hand) of every test that is marked `@provokes`."""
    for path in sorted((CHECKOUT / TESTS).glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "provokes":
                    why = next((ast.literal_eval(word.value) for word in call.keywords if word.arg == "injected"), "")
                    for argument in call.args:
                        yield ast.literal_eval(argument), f"{path.name}::{node.name}", why


def section(check: Check, tests: list[tuple[str, str]]) -> str:
    deep = " Only with `--deep`." if check.deep else ""
    after = (
        f" Not told while one of these has a finding at least as bad: {', '.join(check.after)}." if check.after else ""
    )
    proved = "".join(f"\n- `{test}`{f', put in by hand: {why}' if why else ''}" for test, why in tests)
    head = f"### {check.id}\n\n{WORDS[check.severity]}: {check.title}.{deep}"
    return f"{head}\n\n{check.about}{after}\n\nProved by:{proved}\n"


def checks_page() -> str:
    known = defaultdict(list)
    for name, test, why in proofs():
        known[name].append((test, why))
    families = list(dict.fromkeys(check.family for check in CHECKS))
    parts = [INTRODUCTION + f"{len(CHECKS)} checks: {', '.join(families)}.\n"]
    for family in families:
        parts.append(f"## {family}\n")
        parts += [section(check, known[check.id]) for check in CHECKS if check.family == family]
    return "\n".join(parts)
