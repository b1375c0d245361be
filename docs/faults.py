"""docs/reliability.md: the rows that stand above the tests in tests/faults and tests/service/faults, read without
running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TESTS = "tests/faults"
SECTIONS = ("registry", "network", "disk", "store", "processes", "locks")
SERVICE_TESTS = "tests/service/faults"
SERVICE_SECTIONS = ("boot", "processes", "clients", "store", "gpu", "clock", "pauses")
EVERYWHERE = {"what": "What goes wrong", "how": "How it was made", "happens": "What happens"}
COLUMNS = {**EVERYWHERE, "left": "What is left"}
TITLES = {"gpu": "GPU"}
SERVICE_COLUMNS = {**EVERYWHERE, "again": "Until resident again"}
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
SERVICE_INTRODUCTION = """\
# The service

Each of these {count} rows is a test that installs the service with `llmctl install-service` in a container, under a
real systemd with a real Ollama and a real model, makes the fault happen, and waits until the model is resident again.
The GPU is llama.cpp's RPC device and the driver a stand-in for its library: what only a real card can show is not
proved here.

After every one of them the same must hold:

- `llmctl status --quiet` says 0: the pinned model is resident and proved. Where that is not the end, the guard says
  `degraded` and what a person must do.
- There is one runner, below the one server, in the engine's unit; no other is left.
- No file of the state, of the runtime folder or of the store is half-written.
- The units are in the state that they should be in, and no unit has failed.
- The `STATUS=` line of the guard's unit is true.

The times in the last column are counted in looks of the guard (one every 5 seconds) and in loads of the model; the
tests run with ten times as many looks, and print how long it took.
"""


def rows(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Every row of one file, in the order in which they are written."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "fault":
                said = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg in columns}
                yield said | {"test": node.name}


def table(folder: str, section: str, columns: Mapping[str, str], title: str) -> tuple[str, int]:
    """One section of the page, and how many rows it has."""
    where = f"{folder}/test_{section}.py"
    found = list(rows(CHECKOUT / where, columns))
    head = f"| {' | '.join(columns.values())} |\n|{'---|' * len(columns)}"
    lines = [f"| {' | '.join(row[column].replace('|', chr(92) + '|') for column in columns)} |" for row in found]
    return "\n".join([f"## {title}", "", f"Tests: `{where}`.", "", head, *lines, ""]), len(found)


def part(introduction: str, tables: Sequence[tuple[str, int]]) -> str:
    count = sum(number for _, number in tables)
    return "\n".join([introduction.format(count=count), *(text for text, _ in tables)])


def reliability_page() -> str:
    tables = [table(TESTS, section, COLUMNS, section.capitalize()) for section in SECTIONS]
    service = [
        table(SERVICE_TESTS, section, SERVICE_COLUMNS, f"Service: {TITLES.get(section, section)}")
        for section in SERVICE_SECTIONS
    ]
    return "\n".join([part(INTRODUCTION, tables), part(SERVICE_INTRODUCTION, service)])
