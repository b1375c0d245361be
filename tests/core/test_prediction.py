"""What is odd about a load, beside its prediction."""

from __future__ import annotations

from llmctl.core.prediction import Predicted, claim_apart, findings

MIB = 1 << 20
EXACT = Predicted(buffers_bytes=1000 * MIB, runtime_bytes=300 * MIB, slack_bytes=0, lost_bytes=0)
BOUND = Predicted(buffers_bytes=1000 * MIB, runtime_bytes=300 * MIB, slack_bytes=200 * MIB, lost_bytes=0)


def test_agreement_is_no_finding() -> None:
    assert findings(EXACT, 1000 * MIB, 1000 * MIB, 1300 * MIB) == ()
    assert findings(EXACT, None, None, None) == ()
    assert findings(BOUND, 900 * MIB, 900 * MIB, 1100 * MIB) == ()


def test_more_than_predicted_is_a_finding() -> None:
    (finding,) = findings(BOUND, None, None, 1301 * MIB)
    assert "1,301" in finding
    assert "1,300" in finding


def test_two_percent_below_what_a_bound_allows_is_a_finding() -> None:
    assert findings(BOUND, None, None, 1080 * MIB) == ()
    assert len(findings(BOUND, None, None, 1070 * MIB)) == 1
    assert len(findings(EXACT, None, None, 1270 * MIB)) == 1


def test_the_line_that_api_ps_loses_is_named() -> None:
    sliding = Predicted(1000 * MIB, 0, 0, lost_bytes=6 * MIB)
    (finding,) = findings(sliding, 994 * MIB, 1000 * MIB, None)
    assert "/api/ps is 6 MiB short" in finding


def test_a_runner_that_allocates_something_else_is_a_finding_only_where_it_is_exact() -> None:
    assert len(findings(EXACT, None, 1002 * MIB, None)) == 1
    assert findings(BOUND, None, 950 * MIB, None) == ()


def test_what_api_ps_claims_agrees_within_two_percent_and_what_it_loses() -> None:
    sliding = Predicted(1000 * MIB, 300 * MIB, 0, lost_bytes=6 * MIB)
    assert claim_apart(sliding, 975 * MIB) == claim_apart(sliding, 1020 * MIB) == ()
    assert claim_apart(BOUND, 790 * MIB) == ()
    (finding,) = claim_apart(sliding, 970 * MIB)
    assert finding == "/api/ps claims 970 MiB, 1,000 were predicted"
    assert claim_apart(EXACT, 1021 * MIB)
