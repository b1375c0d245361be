"""The prediction beside what is claimed and measured after the load, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
FINDING_PERCENT = 2


@dataclass(frozen=True)
class Predicted:
    """What the GPUs would hold together.

    `buffers_bytes` is what llama.cpp allocates and prints, `runtime_bytes` what CUDA adds; `slack_bytes` is how far
    the truth may lie below. `lost_bytes` is what /api/ps does not see: of a sliding-window model it keeps one of
    two lines of the same name (ollama v0.34.0 llm/llama_server.go, memoryParsingWriter).
    """

    buffers_bytes: int
    runtime_bytes: int
    slack_bytes: int
    lost_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.buffers_bytes + self.runtime_bytes


def findings(
    expected: Predicted, claimed_bytes: int | None, printed_bytes: int | None, measured_bytes: int | None
) -> tuple[str, ...]:
    """What does not agree, and who is right. `printed_bytes` is the sum of the runner's own lines."""
    found = []
    if printed_bytes is not None and abs(printed_bytes - expected.buffers_bytes) > MIB and not expected.slack_bytes:
        found.append(
            f"the runner allocated {printed_bytes / MIB:,.2f} MiB, {expected.buffers_bytes / MIB:,.2f} were predicted"
        )
    if claimed_bytes is not None and expected.lost_bytes and claimed_bytes < expected.buffers_bytes - MIB:
        found.append(
            f"/api/ps is {expected.lost_bytes / MIB:,.0f} MiB short: it loses the first cache line of a "
            "sliding-window model; the prediction counts both"
        )
    if measured_bytes is not None:
        found += _measured(expected, measured_bytes)
    return tuple(found)


def claim_apart(expected: Predicted, claimed_bytes: int) -> tuple[str, ...]:
    """What /api/ps says beside the prediction. The line that it loses is no difference."""
    least = (expected.buffers_bytes - expected.slack_bytes - expected.lost_bytes) * (100 - FINDING_PERCENT) // 100
    if least <= claimed_bytes <= most(expected.buffers_bytes):
        return ()
    return (f"/api/ps claims {claimed_bytes / MIB:,.0f} MiB, {expected.buffers_bytes / MIB:,.0f} were predicted",)


def most(predicted_bytes: int) -> int:
    """What still agrees with a prediction."""
    return predicted_bytes * (100 + FINDING_PERCENT) // 100


def _measured(expected: Predicted, measured_bytes: int) -> list[str]:
    words = f"NVML measured {measured_bytes / MIB:,.0f} MiB, {expected.total_bytes / MIB:,.0f} were predicted"
    least = (expected.total_bytes - expected.slack_bytes) * (100 - FINDING_PERCENT) // 100
    if measured_bytes > expected.total_bytes:
        return [f"{words}: more than it should be"]
    return [f"{words}: less than it should be"] if measured_bytes < least else []
