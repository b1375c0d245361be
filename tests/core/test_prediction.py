"""What is odd about a load, beside its prediction."""

from __future__ import annotations

import pytest

from llmctl.core.placement import Buffer, Witnesses
from llmctl.core.prediction import Predicted, claim_apart, findings

MIB = 1 << 20
EXACT = Predicted(buffers_bytes=1000 * MIB, runtime_bytes=300 * MIB, slack_bytes=0, lost_bytes=0)
BOUND = Predicted(buffers_bytes=1000 * MIB, runtime_bytes=300 * MIB, slack_bytes=200 * MIB, lost_bytes=0)
PICTURES = Predicted(1000 * MIB, 300 * MIB, 0, 0, projector_bytes=800 * MIB)


def seen(printed: int | None = None, measured: int | None = None, projector: Buffer | None = None) -> Witnesses:
    """Figures in MiB."""
    lines = () if printed is None else (Buffer("CUDA0", "model", printed * MIB), Buffer("CPU", "model", 50 * MIB))
    return Witnesses(None, (*lines, *((projector,) if projector else ())), measured and measured * MIB)


def test_agreement_is_no_finding() -> None:
    assert findings(EXACT, seen(1000, 1300), 1000 * MIB) == ()
    assert findings(EXACT, seen()) == ()
    assert findings(BOUND, seen(900, 1100), 900 * MIB) == ()


def test_more_than_predicted_is_a_finding() -> None:
    (finding,) = findings(BOUND, seen(measured=1301))
    assert "1,301" in finding
    assert "1,300" in finding


def test_two_percent_below_what_a_bound_allows_is_a_finding() -> None:
    assert findings(BOUND, seen(measured=1080)) == ()
    assert len(findings(BOUND, seen(measured=1070))) == 1
    assert len(findings(EXACT, seen(measured=1270))) == 1


def test_the_line_that_api_ps_loses_is_named() -> None:
    sliding = Predicted(1000 * MIB, 0, 0, lost_bytes=6 * MIB)
    (finding,) = findings(sliding, seen(1000), 994 * MIB)
    assert "/api/ps is 6 MiB short" in finding


def test_a_runner_that_allocates_something_else_is_a_finding_only_where_it_is_exact() -> None:
    assert len(findings(EXACT, seen(1002))) == 1
    assert findings(BOUND, seen(950)) == ()


def test_what_api_ps_claims_agrees_within_two_percent_and_what_it_loses() -> None:
    sliding = Predicted(1000 * MIB, 300 * MIB, 0, lost_bytes=6 * MIB)
    assert claim_apart(sliding, 975 * MIB, 0) == claim_apart(sliding, 1020 * MIB, 0) == ()
    assert claim_apart(BOUND, 790 * MIB, 0) == ()
    (finding,) = claim_apart(sliding, 970 * MIB, 0)
    assert finding == "/api/ps claims 970 MiB, 1,000 were predicted"
    assert claim_apart(EXACT, 1021 * MIB, 0)


ON_GPU, ON_HOST = Buffer("CUDA0", "projector", 250 * MIB), Buffer("CPU", "projector", 250 * MIB)


@pytest.mark.parametrize(
    ("projector", "measured", "odd"),
    [
        # On the GPU its weights are there at least, and what it computes in has no bound.
        (ON_GPU, 2100, False),
        (ON_GPU, 2900, False),
        (ON_GPU, 2050, True),
        # In host memory it takes nothing of the GPU.
        (ON_HOST, 1300, False),
        (ON_HOST, 1301, True),
        (ON_HOST, 1270, True),
        # Where nobody says where it lies, less than without it would be odd.
        (None, 1300, False),
        (None, 2900, False),
        (None, 1270, True),
    ],
)
def test_a_projector_counts_where_it_lies(projector: Buffer | None, measured: int, odd: bool) -> None:
    assert bool(findings(PICTURES, seen(1000, measured, projector))) == odd


def test_what_a_projector_computes_in_is_no_part_of_the_model() -> None:
    lines = seen(1000, None, ON_GPU)
    assert lines.buffer_bytes == 1250 * MIB
    assert findings(PICTURES, lines, 1250 * MIB) == ()
    assert claim_apart(PICTURES, 1250 * MIB, 250 * MIB) == ()
    assert claim_apart(PICTURES, 1300 * MIB, 250 * MIB)
    assert len(findings(PICTURES, seen(1002, None, ON_GPU))) == 1
