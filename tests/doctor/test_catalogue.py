"""What holds of every check: a test that provokes it, a section in the docs, causes that stand before it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from llmctl.core.checks import causes
from llmctl.core.checks.catalogue import CHECKS
from llmctl.core.checks.examine import examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent


def provoked() -> set[str]:
    found: set[str] = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "provokes":
                found |= {ast.literal_eval(argument) for argument in node.args}
    return found


def test_every_check_has_a_test_that_provokes_it() -> None:
    assert {check.id for check in CHECKS} == provoked()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_is_well_formed_and_stands_after_its_causes(check: Check) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z0-9-]+", check.id)
    assert check.title
    assert not check.title.endswith(".")
    assert len(check.about) > 60
    order = [each.id for each in CHECKS]
    assert order.count(check.id) == 1
    assert len(set(check.after)) == len(check.after), "a cause is named twice"
    for cause in check.after:
        assert cause in order, f"{check.id} stands after {cause}, which is no check"
        assert order.index(cause) < order.index(check.id), f"{check.id} stands before {cause}"
    page = (CHECKOUT / "docs" / "checks.md").read_text()
    assert f"### {check.id}\n" in page


def test_every_cause_is_a_check() -> None:
    known = {check.id for check in CHECKS}
    for name, listed in vars(causes).items():
        if name.isupper():
            assert set(listed) <= known, f"{name}: {set(listed) - known}"
            assert len(set(listed)) == len(listed), f"{name} names one twice"


def check(name: str, said: Judgement | Exception, *after: str) -> Check:
    def judge(_: Facts) -> Judgement:
        if isinstance(said, Exception):
            raise said
        return said

    return Check(name, name, "error", "about", judge, after)


FINDING = Finding("observed", "expected", Remedy("text", ("llmctl up",)))


def test_what_follows_from_a_finding_is_not_looked_at() -> None:
    outcomes = examine(
        [check("a.a", FINDING), check("a.b", FINDING, "a.a"), check("a.c", FINDING, "a.b"), check("a.d", None)], Facts()
    )
    assert [(one.state, one.why) for one in outcomes] == [
        ("found", ""),
        ("skipped", "a.a"),
        ("skipped", "a.a"),
        ("ok", ""),
    ]


def test_a_check_in_order_passes_no_cause_on() -> None:
    """A unit that is disabled explains a server that is not there, and nothing about the model of one that is."""
    outcomes = examine([check("a.a", FINDING), check("a.b", None, "a.a"), check("a.c", FINDING, "a.b")], Facts())
    assert [(one.state, one.why) for one in outcomes] == [("found", ""), ("skipped", "a.a"), ("found", "")]


def test_a_check_that_crashes_is_a_finding_and_the_others_go_on() -> None:
    crashed, after = examine([check("a.a", ZeroDivisionError("division by zero")), check("a.b", None)], Facts())
    assert "ZeroDivisionError: division by zero" in crashed.findings[0].observed
    assert after.state == "ok"


def test_unknown_is_neither_ok_nor_an_error() -> None:
    (outcome,) = examine([check("a.a", Unknown("nobody tells"))], Facts())
    assert (outcome.state, outcome.why, outcome.findings) == ("unknown", "nobody tells", ())


def test_facts_that_could_not_be_gathered_make_the_check_unknown() -> None:
    def judge(facts: Facts) -> Judgement:
        return None if facts.gpu.cards else FINDING

    (outcome,) = examine([Check("a.a", "a", "error", "about", judge)], Facts({}, {"gpu": "NVML hangs"}))
    assert (outcome.state, outcome.why) == ("unknown", "NVML hangs")
