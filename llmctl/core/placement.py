"""Where a loaded model lies, from what the witnesses say, and whether that proves what the profile asks.

A witness that could not be read is None, never 0: unknown is not a zero, and it never proves anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Require = Literal["full", "partial", "none"]
Place = Literal["gpu", "partial", "cpu", "unknown"]
Verdict = Literal["proved", "unverified", "refuted"]

MIB = 1 << 20
BUFFER_LINE = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([0-9.]+) MiB")
# The compute buffer of a projector for pictures or sound. Its weights have no such line (llama.cpp b10760
# tools/mtmd/clip.cpp:3561 and 3732, seen).
OF_PROJECTOR = "reserve_compute_meta:"
PROJECTOR = "projector"
RUNNER_START = "starting llama-server"


@dataclass(frozen=True)
class Buffer:
    """One `… buffer size` line of the runner. `size_bytes` is rounded there to 0.01 MiB. `kind` is the line's own word,
    or PROJECTOR."""

    device: str
    kind: str
    size_bytes: int

    @property
    def on_host(self) -> bool:
        """Whether the device is host memory: CPU, CPU_REPACK, CPU_Mapped, CUDA_Host and the like."""
        return self.device.startswith("CPU") or self.device.endswith("_Host") or self.device == "BLAS"


@dataclass(frozen=True)
class Claim:
    """What /api/ps says of the loaded model. None stands for a model that it does not show."""

    digest: str
    context_length: int | None
    size_bytes: int
    size_vram_bytes: int


@dataclass(frozen=True)
class Witnesses:
    """All that is known about one load.

    buffers: the runner's lines; None when its log cannot be read.
    gpu_process_bytes: NVML's bytes of the runner over all GPUs; None when NVML cannot tell.
    gpu_difference_bytes: what all GPUs gained across the load; None when not measured.
    runner_ended: the runner is known to be gone. /api/ps goes on showing its model until the next request
    (ollama v0.34.0, seen).
    """

    claim: Claim | None
    buffers: tuple[Buffer, ...] | None = None
    gpu_process_bytes: int | None = None
    gpu_difference_bytes: int | None = None
    runner_ended: bool = False

    @property
    def buffer_bytes(self) -> int | None:
        """Bytes that the runner's own lines put on devices."""
        if not self.buffers:
            return None
        return sum(buffer.size_bytes for buffer in self.buffers if not buffer.on_host)

    @property
    def projector_bytes(self) -> int | None:
        """What of them computes pictures or sound: 0 where a projector lies in host memory, None where no line tells
        of one."""
        lines = [buffer for buffer in self.buffers or () if buffer.kind == PROJECTOR]
        return sum(buffer.size_bytes for buffer in lines if not buffer.on_host) if lines else None

    @property
    def measured_bytes(self) -> int | None:
        """Bytes on GPUs by NVML: the process's, else the difference across the load."""
        return self.gpu_difference_bytes if self.gpu_process_bytes is None else self.gpu_process_bytes


@dataclass(frozen=True)
class Proof:
    """The verdict on one load, and in words why it is not `proved`."""

    verdict: Verdict
    place: Place
    reasons: tuple[str, ...] = ()


def judge(require: Require, digests: Iterable[str], context: int | None, seen: Witnesses) -> Proof:
    """Whether the load is what was asked for.

    digests: manifest digests that stand for the pinned weights (several names may share one runner, and
    /api/ps shows the name that loaded first). context: tokens per slot, or None to accept any.
    """
    claim = seen.claim
    if claim is None:
        return Proof("refuted", "unknown", ("the model is not loaded",))
    if seen.runner_ended:
        return Proof("refuted", "unknown", ("the model's runner has ended",))
    place = placed(seen)
    wrong = []
    if claim.digest not in set(digests):
        wrong.append(f"the loaded model is {claim.digest[:12]}, which is not the pinned one")
    if context is not None and claim.context_length != context:
        wrong.append(f"the loaded context is {claim.context_length}, the profile asks for {context}")
    if require == "none":
        return Proof("refuted" if wrong else "proved", place, tuple(wrong))
    if place == "cpu":
        wrong.append("the model lies in host memory, not on a GPU")
    if place == "partial" and require == "full":
        share = 100 * claim.size_vram_bytes // claim.size_bytes
        wrong.append(f"only {share} % of the model is on a GPU")
    if wrong:
        return Proof("refuted", place, tuple(wrong))
    if place == "unknown":
        reason = "neither the runner's log nor NVML can be read, so nothing shows where the model lies"
        return Proof("unverified", place, (reason,))
    return Proof("proved", place)


def placed(seen: Witnesses) -> Place:
    """Where the model lies.

    /api/ps alone is no witness: it reports a full offload when it could not read the runner's lines (ollama
    v0.33.0 llm/llama_server.go:2669-2676) and 0 of 0 on a machine without a GPU. So a GPU needs a second one.
    """
    claim = seen.claim
    if claim is None:
        return "unknown"
    devices = [count for count in (seen.buffer_bytes, seen.measured_bytes) if count is not None]
    if not devices:
        return "cpu" if claim.size_vram_bytes == 0 and claim.size_bytes == 0 else "unknown"
    if not any(devices):
        return "cpu"
    if claim.size_vram_bytes == 0:
        return "cpu" if seen.buffer_bytes == 0 else "unknown"
    return "gpu" if claim.size_vram_bytes == claim.size_bytes else "partial"


def parse_buffers(log: str, weights_digest: str) -> tuple[Buffer, ...] | None:
    """The buffer lines of the last load of these weights in an engine's log; None when it has none.

    `offloaded N/N layers to GPU` is not used: the line says the same on a machine without any device.
    """
    blob = "sha256-" + weights_digest.removeprefix("sha256:")
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if RUNNER_START in line and blob in line]
    if not starts:
        return None
    found = []
    for line in lines[starts[-1] + 1 :]:
        if RUNNER_START in line:
            break
        if match := BUFFER_LINE.search(line):
            kind = PROJECTOR if OF_PROJECTOR in line else match[2]
            found.append(Buffer(match[1], kind, round(float(match[3]) * MIB)))
    return tuple(found) or None


# Case-insensitive, from ollama v0.33.0 llm/status.go:85-96.
OUT_OF_MEMORY = (
    "out of memory",
    "out of device memory",
    "cudamalloc failed",
    "hipmalloc failed",
    "failed to allocate",
    "allocation failed",
    "not enough memory",
    "insufficient memory",
    "vk_error_out_of_device_memory",
    "erroroutofmemory",
    "unable to load full model on gpu",
)


def is_out_of_memory(text: str) -> bool:
    """Whether an engine's error text says that a device or the host ran out of memory."""
    lowered = text.lower()
    return any(phrase in lowered for phrase in OUT_OF_MEMORY)
