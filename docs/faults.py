"""docs/reliability.md: the rows that stand above the tests in tests/faults, read without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests" / "faults"
SECTIONS = ("registry", "network", "disk", "store", "processes", "locks")
COLUMNS = {"what": "What goes wrong", "how": "How it was made", "happens": "What happens", "left": "What is left"}
INTRODUCTION = """\
# What goes wrong, and what happens then

This page is generated from the tests in `tests/faults`; `make docs` writes it. Each of the {count} rows is a test that
makes the fault happen to a real Ollama with a store of its own, types the verb, and looks at what is left.

After every one of them the same must hold:

- What is pinned and not reported bad hashes to its digest.
- No half of a file lies where a server looks for a whole one. An unfinished download of Ollama's is `blobs/…-partial`;
  what llmctl has not finished lies in `.llmctl/` in the store.
- The lock file loads. It is written as a whole or not at all.
- Nothing that hashed and was pinned is gone.
- The next run goes on from the bytes that are there; where it cannot, the table says so.

"Nothing" in the last column means: no model, no blob, no pin that was not there before.
"""


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Every row of one file, in the order in which they are written."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "fault":
                said = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg in COLUMNS}
                yield said | {"test": node.name}


def table(section: str) -> tuple[str, int]:
    """One section of the page, and how many rows it has."""
    found = list(rows(TESTS / f"test_{section}.py"))
    head = f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}"
    lines = [f"| {' | '.join(row[column].replace('|', chr(92) + '|') for column in COLUMNS)} |" for row in found]
    where = f"Tests: `tests/faults/test_{section}.py`."
    return "\n".join([f"## {section.capitalize()}", "", where, "", head, *lines, ""]), len(found)


def reliability_page() -> str:
    tables = [table(section) for section in SECTIONS]
    count = sum(number for _, number in tables)
    return "\n".join([INTRODUCTION.format(count=count), *(text for text, _ in tables)])
