"""The prediction beside what is claimed and measured after the load, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.placement import Witnesses

MIB = 1 << 20
FINDING_PERCENT = 2


@dataclass(frozen=True)
class Predicted:
    """What the GPUs would hold together.

    `buffers_bytes` is what llama.cpp allocates for the model and prints, `runtime_bytes` what CUDA adds; `slack_bytes`
    is how far the truth may lie below. `lost_bytes` is what /api/ps does not see: of a sliding-window model it keeps
    one of two lines of the same name (ollama v0.34.0 llm/llama_server.go, memoryParsingWriter).

    `projector_bytes` are the weights for pictures or sound, which the runner loads beside the model on the first GPU
    (llama.cpp b10760 tools/mtmd/clip.cpp:194-202, 3561) and which neither a buffer line nor /api/ps counts. What it
    computes in is not known before the load, grows with the picture, and is counted by both.
    """

    buffers_bytes: int
    runtime_bytes: int
    slack_bytes: int
    lost_bytes: int
    projector_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.buffers_bytes + self.projector_bytes + self.runtime_bytes


def findings(expected: Predicted, seen: Witnesses, claimed_bytes: int | None = None) -> tuple[str, ...]:
    """What does not agree, and who is right."""
    found = []
    beside = seen.projector_bytes or 0
    printed = None if seen.buffer_bytes is None else seen.buffer_bytes - beside
    if printed is not None and abs(printed - expected.buffers_bytes) > MIB and not expected.slack_bytes:
        found.append(
            f"the runner allocated {printed / MIB:,.2f} MiB, {expected.buffers_bytes / MIB:,.2f} were predicted"
        )
    short = claimed_bytes is not None and claimed_bytes - beside < expected.buffers_bytes - MIB
    if short and expected.lost_bytes:
        found.append(
            f"/api/ps is {expected.lost_bytes / MIB:,.0f} MiB short: it loses the first cache line of a "
            "sliding-window model; the prediction counts both"
        )
    if seen.measured_bytes is not None:
        found += _measured(expected, seen.measured_bytes, seen.projector_bytes)
    return tuple(found)


def claim_apart(expected: Predicted, claimed_bytes: int, beside_bytes: int) -> tuple[str, ...]:
    """What /api/ps says beside the prediction. The line that it loses is no difference, and of `beside_bytes`, the
    projector's lines, it may have lost some too."""
    least = (expected.buffers_bytes - expected.slack_bytes - expected.lost_bytes) * (100 - FINDING_PERCENT) // 100
    if least <= claimed_bytes <= most(expected.buffers_bytes + beside_bytes):
        return ()
    return (f"/api/ps claims {claimed_bytes / MIB:,.0f} MiB, {expected.buffers_bytes / MIB:,.0f} were predicted",)


def most(predicted_bytes: int) -> int:
    """What still agrees with a prediction."""
    return predicted_bytes * (100 + FINDING_PERCENT) // 100


def _measured(expected: Predicted, measured_bytes: int, beside_bytes: int | None) -> list[str]:
    """`beside_bytes` are of the projector's own lines: none where it lies in host memory, None where nobody says."""
    total = expected.total_bytes if beside_bytes else expected.total_bytes - expected.projector_bytes
    words = f"NVML measured {measured_bytes / MIB:,.0f} MiB, {total / MIB:,.0f} were predicted"
    least = (total - expected.slack_bytes) * (100 - FINDING_PERCENT) // 100
    # What a projector on a GPU takes beside its weights has no bound.
    bounded = not expected.projector_bytes if beside_bytes is None else beside_bytes == 0
    if measured_bytes > total and bounded:
        return [f"{words}: more than it should be"]
    return [f"{words}: less than it should be"] if measured_bytes < least else []
