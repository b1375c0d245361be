"""What counts as a client's doing, on facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.checks import clients
from llmctl.core.checks.examine import examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.log import Load, LogFacts, LogLine
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.server import ServerFacts
from llmctl.core.checks.finding import Finding

MINE, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
NOW = 10_000.0
LOG = LogFacts("log", 100, since_start=True, now_seconds=NOW)
LOADED = LoadedFacts("m", "d", 2048, 0, 0, None, MINE)


def facts(log: LogFacts = LOG, loaded: LoadedFacts = LOADED) -> Facts:
    one = ResidentFacts("m", "m", frozenset({"d"}), MINE, 2048, loaded, None, None, None, 8, ())
    seen = ServerFacts("http://127.0.0.1:11434", "profile", "answers", version="0.34.0", owner="llmctl", pid=7)
    return Facts({"log": log, "models": ModelsFacts("none", (one,), (loaded,)), "server": seen})


def found(given: Facts) -> dict[str, Finding]:
    outcomes = examine(clients.CHECKS, given)
    return {outcome.check.id: outcome.findings[0] for outcome in outcomes if outcome.state == "found"}


def loads(*each: tuple[str, int], apart_seconds: float | None = 60.0, ago_seconds: float = 0.0) -> LogFacts:
    """The last of them was `ago_seconds` ago."""
    last = NOW - ago_seconds
    made = tuple(
        Load(digest, context, 1, None if apart_seconds is None else last - (len(each) - place) * apart_seconds)
        for place, (digest, context) in enumerate(each, 1)
    )
    return replace(LOG, loads=made)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (loads((MINE, 2048), (MINE, 512), (MINE, 2048), (MINE, 512)), "3 loads within the last hour"),
        (loads((MINE, 2048), (MINE, 512), (MINE, 2048), (MINE, 512)), "contexts of 512, 2048 tokens"),
        (
            loads((MINE, 2048), (OTHER, 4096), (MINE, 2048), (OTHER, 4096), (MINE, 2048), (OTHER, 1), (MINE, 2048)),
            "other",
        ),
        (loads((MINE, 1), (MINE, 2), (MINE, 1), (MINE, 2), apart_seconds=None), "3 loads"),
        (loads((MINE, 2048), (MINE, 2048), (MINE, 2048), (MINE, 2048)), None),
        (loads((MINE, 2048), (MINE, 512), (MINE, 2048)), None),
        (loads((MINE, 2048), (MINE, 512), (MINE, 2048), (MINE, 512), apart_seconds=2400), None),
        (loads((MINE, 2048), (MINE, 512), (MINE, 2048), (MINE, 512), ago_seconds=3601), None),
        (loads((MINE, 2048), (OTHER, 1), (OTHER, 2), (OTHER, 3), (OTHER, 1)), None),
        (LOG, None),
    ],
)
def test_what_is_a_storm(log: LogFacts, words: str | None) -> None:
    storm = found(facts(log)).get("clients.reloads")
    assert (storm is None) == (words is None)
    if storm is not None and words is not None:
        assert words in storm.observed


@pytest.mark.parametrize(
    ("stays_seconds", "words"),
    [
        (290.0, "it is unloaded in 5 min, unless a request comes"),
        (30.0, "it is unloaded in 30 s, unless a request comes"),
        (-4.0, "it is unloaded as soon as it is idle"),
    ],
)
def test_when_it_goes(stays_seconds: float, words: str) -> None:
    assert found(facts(loaded=replace(LOADED, stays_seconds=stays_seconds)))["clients.keep-alive"].observed == words
    assert found(facts()) == {}


def test_the_numbers_of_a_cut_prompt() -> None:
    line = 'time=x level=WARN msg="truncating input prompt" limit=259 prompt=9002 keep=5 new=259'
    finding = found(facts(replace(LOG, truncated=LogLine(line, 2))))["clients.truncated"]
    assert finding.observed.startswith("2 prompts were cut in the middle")
    assert finding.observed.endswith("the last had 9,002 tokens, of which 259 were read")


@pytest.mark.parametrize(("kind", "check"), [("truncated", "truncated"), ("embedding_refused", "embeddings")])
@pytest.mark.parametrize(
    ("count", "recent", "words", "severity"),
    [(9, 2, "2 ", None), (9, 0, "9 ", "info"), (9, None, "9 ", None)],
)
def test_what_was_long_ago_is_for_information(
    kind: str, check: str, count: int, recent: int | None, words: str, severity: str | None
) -> None:
    log = replace(LOG, **{kind: LogLine("a line", count, recent)})  # type: ignore[arg-type]
    finding = found(facts(log))[f"clients.{check}"]
    assert finding.observed.startswith(words)
    assert finding.severity == severity
    assert ("none within the last hour" in finding.observed) == (recent == 0)


@pytest.mark.parametrize(
    ("log", "state"),
    [
        (LOG, "ok"),
        (replace(LOG, since_start=False), "unknown"),
        (replace(LOG, since_start=False, complete_from=NOW - 60), "unknown"),
        (replace(LOG, since_start=False, complete_from=NOW - 3600), "ok"),
    ],
)
def test_what_a_log_does_not_have_is_unknown_where_it_does_not_reach_back(log: LogFacts, state: str) -> None:
    of_log = [check for check in clients.CHECKS if check.id != "clients.keep-alive"]
    assert {each.state for each in examine(of_log, facts(log))} == {state}
