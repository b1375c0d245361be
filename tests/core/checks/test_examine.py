"""Which finding is left out because of another one: never one that is worse, unless somebody asked for the cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.checks.catalogue import CHECKS
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.models import ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.server import Runner, ServerFacts
from llmctl.core.checks.facts.service import GuardFacts, ServiceFacts, UnitFacts
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.checks.facts.store import Trouble
from llmctl.core.checks.finding import SEVERITIES, Check, Finding, Judgement, Remedy, Severity, Unknown
from llmctl.core.unit import ENGINE
from tests.core.checks.test_store import SOUND as STORE

GIB = 1 << 30
CAUSE, OTHER, LAST = "store.space", "service.guard-degraded", "model.not-resident"


def finding(severity: Severity | None = None) -> Finding:
    return Finding("observed", "expected", Remedy("text"), severity=severity)


def check(name: str, said: Judgement, *after: str, severity: Severity = "error") -> Check:
    return Check(name, name, severity, "about", lambda _: said, after)


def states(*checks: Check) -> list[str]:
    return [f"{one.state} {one.why}".strip() for one in examine(checks, Facts())]


@pytest.mark.parametrize("cause", SEVERITIES)
@pytest.mark.parametrize("other", SEVERITIES)
def test_nothing_worse_than_its_cause_is_hidden(cause: Severity, other: Severity) -> None:
    hidden = SEVERITIES.index(cause) <= SEVERITIES.index(other)
    told = states(check(CAUSE, finding(cause)), check(OTHER, finding(other), CAUSE))
    assert told == ["found", f"skipped {CAUSE}" if hidden else "found"]


@pytest.mark.parametrize(
    ("cause", "other", "told"),
    [
        # The worst finding of each counts.
        ([finding("info"), finding("error")], [finding("error")], f"skipped {CAUSE}"),
        ([finding("info"), finding("warning")], [finding("info"), finding("error")], "found"),
        ([finding("info")], None, f"skipped {CAUSE}"),
        ([finding("info")], Unknown("nobody tells"), f"skipped {CAUSE}"),
        (None, [finding("error")], "found"),
        (Unknown("nobody tells"), [finding("error")], "found"),
    ],
)
def test_how_bad_several_findings_are(cause: Judgement, other: Judgement, told: str) -> None:
    assert states(check(CAUSE, cause), check(OTHER, other, CAUSE))[1] == told


def test_the_first_cause_that_is_bad_enough_is_named() -> None:
    causes = [check("a.a", finding("info")), check("a.b", finding("error"))]
    assert states(*causes, check(OTHER, finding(), "a.a", "a.b"))[-1] == "skipped a.b"


@pytest.mark.parametrize(("first", "told"), [("error", f"skipped {CAUSE}"), ("warning", "found")])
def test_what_follows_from_what_is_hidden_is_measured_at_the_cause(first: Severity, told: str) -> None:
    """The one between them is a warning or cannot tell, and is hidden either way."""
    for between in (finding("warning"), Unknown("nobody tells")):
        shown = states(check(CAUSE, finding(first)), check(OTHER, between, CAUSE), check(LAST, finding("error"), OTHER))
        assert shown == ["found", f"skipped {CAUSE}", told]


@pytest.mark.parametrize("cause", ["server.not-running", "server.held"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_somebody_asked_for_explains_what_follows(cause: str, severity: Severity) -> None:
    assert states(check(cause, finding(severity)), check(LAST, finding("error"), cause))[1] == f"skipped {cause}"


@pytest.mark.parametrize(("severity", "told"), [("error", "skipped server.not-running"), ("warning", "found")])
def test_a_server_that_was_ended_explains_no_orphan(severity: Severity, told: str) -> None:
    orphan = check("server.orphaned-runner", finding("error"), "server.not-running")
    assert states(check("server.not-running", finding(severity)), orphan)[1] == told


# The same with the real checks: what a machine has, and how the check comes out that is about the worse of it.
SERVER = ServerFacts("http://127.0.0.1:11434", "profile", "answers", owner="llmctl", pid=7)
DOWN = replace(SERVER, answer="absent", words="nothing listens there", pid=None, ended=True)
LOW = replace(STORE, free_bytes=GIB // 2)
UNPINNED = replace(STORE, corrupt=(Trouble("old:latest", "it is no JSON", wanted=False),))
READ_ONLY = replace(STORE, read_only=True)
DEGRADED = ServiceFacts(True, "system", guard=GuardFacts("evicted", "model m is not resident", True))
FAILED_UNIT = UnitFacts(
    ENGINE, f"/etc/systemd/system/{ENGINE}", "llmctl", "loaded", "failed", "failed", "exit-code", "static"
)
FAILED = ServiceFacts(True, "system", units={ENGINE: FAILED_UNIT})
GONE = ResidentFacts(
    *("m", "llmctl/m:1", frozenset({"d"}), "sha256:" + "ab" * 32, 2048),
    *(None, None, None, None, None, ()),
)
ORPHAN = Runner(8, "ann", None, (), "S", 4 * GIB, 4 * GIB, "ok", 3.0)


def looked(name: str, **areas: object) -> Outcome:
    facts = {
        "server": SERVER,
        "store": STORE,
        "service": ServiceFacts(True),
        "models": ModelsFacts("none", (), ()),
        "shell": ShellFacts("ann", 1000, {}, None, False),
    }
    every = {one.check.id: one for one in examine(CHECKS, Facts({**facts, **areas}))}
    return every[name]


@pytest.mark.parametrize(
    ("name", "areas", "told"),
    [
        ("service.guard-degraded", {"store": LOW, "service": DEGRADED}, "found"),
        ("service.guard-degraded", {"store": UNPINNED, "service": DEGRADED}, "found"),
        ("service.guard-degraded", {"store": replace(STORE, free_bytes=1), "service": DEGRADED}, "skipped store.space"),
        ("service.failed", {"store": READ_ONLY, "service": FAILED, "server": replace(DOWN, ended=False)}, "found"),
        (
            "server.not-running",
            {"store": READ_ONLY, "service": FAILED, "server": replace(DOWN, ended=False, expected=True)},
            "skipped service.failed",
        ),
        ("store.unreadable", {"store": replace(READ_ONLY, readable=False, problem="no list")}, "found"),
        ("model.not-resident", {"store": UNPINNED, "models": ModelsFacts("none", (GONE,), ())}, "found"),
        # Nothing is missed while nobody wants a server, or the guard is held.
        ("server.not-running", {"server": DOWN}, "found"),
        (
            "model.not-resident",
            {"server": DOWN, "models": ModelsFacts("none", (GONE,), ())},
            "skipped server.not-running",
        ),
        (
            "model.not-resident",
            {"server": replace(SERVER, held="llmctl guard --hold"), "models": ModelsFacts("none", (GONE,), ())},
            "skipped server.held",
        ),
        ("server.orphaned-runner", {"server": replace(DOWN, runners=(ORPHAN,))}, "found"),
        (
            "server.orphaned-runner",
            {"server": replace(DOWN, ended=False, expected=True, runners=(ORPHAN,))},
            "skipped server.not-running",
        ),
    ],
)
def test_an_error_is_told_beside_a_warning(name: str, areas: dict[str, object], told: str) -> None:
    outcome = looked(name, **areas)
    assert f"{outcome.state} {outcome.why}".strip() == told
