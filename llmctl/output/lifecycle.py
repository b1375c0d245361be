"""What `up`, `down` and `status` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import UNKNOWN, duration, pairs, size

if TYPE_CHECKING:
    from llmctl.core.serving import Lack
    from llmctl.server import ActiveModel
    from llmctl.workflows.down import DownResult
    from llmctl.workflows.status import ModelStatus, Status
    from llmctl.workflows.up import UpResult

PLACES = {"gpu": "on the GPU", "partial": "partly on the GPU", "cpu": "in host memory", "unknown": UNKNOWN}
OWNERS = {"llmctl": "started by llmctl", "systemd": "systemd", "foreign": "not started by llmctl (attached)"}


def up_lines(result: UpResult, _: int) -> list[str]:
    lines = [model_line(model) for model in result.models]
    lines += [f"note: {note}" for note in result.notes]
    lines += lack_lines(result.lacks)
    ready = [model for model in result.models if model.verdict == "proved"]
    if len(ready) == len(result.models):
        lines.append(f'{"up" if result.changed else "already up"} at {result.base_url}. Ask it: llmctl ask "…"')
    return lines


def model_line(model: ActiveModel) -> str:
    if model.verdict == "proved":
        return f"{model.name}: resident {PLACES[model.place]}, context {model.context}"
    return f"{model.name}: {model.verdict}: {'; '.join(model.reasons)}"


def lack_lines(lacks: tuple[Lack, ...]) -> list[str]:
    """A foreign server's missing settings, with the drop-in that adds them."""
    if not lacks:
        return []
    from llmctl.core.serving import drop_in

    told = [f"  {lack.setting} is {lack.found or 'not set'}, the profile asks for {lack.wanted}" for lack in lacks]
    return [
        "this server lacks settings of the profile:",
        *told,
        "to add them: sudo systemctl edit ollama.service, with",
        *("  " + line for line in drop_in(lacks).splitlines()),
        "then: sudo systemctl restart ollama.service",
    ]


def down_lines(result: DownResult, _: int) -> list[str]:
    if result.attached:
        freed = f"unloaded {', '.join(result.unloaded)}" if result.unloaded else "its models stay loaded (--unload)"
        return [f"the server at {result.attached} was not started by llmctl and goes on; {freed}"]
    return ["stopped" if result.changed else "nothing runs"]


def status_lines(status: Status, width: int) -> list[str]:
    if status.state == "stopped":
        return ["stopped", *([status.note] if status.note else []), "start it: llmctl up"]
    rows = [
        ("state", f"running for {duration(status.uptime_seconds)}" if status.uptime_seconds else "running"),
        ("owner", OWNERS.get(status.owner or "", UNKNOWN) + (f", pid {status.pid}" if status.pid else "")),
        ("server", f"Ollama {status.engine_version} at {status.base_url}"),
        ("profile", status.profile or ""),
    ]
    lines = pairs(rows, width)
    for model in status.models:
        lines += ["", *model_lines(model, status, width)]
    if status.others:
        lines += ["", *pairs([("also loaded", ", ".join(status.others))], width)]
    return [*lines, *([status.note] if status.note else [])]


def model_lines(model: ModelStatus, status: Status, width: int) -> list[str]:
    slots = f", {status.parallel} slot{'' if status.parallel == 1 else 's'}" if status.parallel else ""
    cache = f", KV cache {status.kv_cache}" if status.kv_cache else ""
    rows = [
        ("model", model_words(model)),
        ("pin", f"{model.weights_digest.removeprefix('sha256:')[:12]} {verdict_words(model)}"),
        ("context", f"{model.context or UNKNOWN} tokens{slots}{cache}" if model.resident else ""),
        ("lies", PLACES[model.place] if model.resident else ""),
        ("memory", memory_words(model) if model.resident else ""),
        *(("finding", finding) for finding in model.findings),
    ]
    return pairs(rows, width)


def model_words(model: ModelStatus) -> str:
    if same_name(model.name, model.served):
        return f"{model.name} ({model.quantization})"
    return f"{model.served} ({model.quantization}), standing in for {model.name}"


def same_name(asked: str, served: str) -> bool:
    return served in {asked, f"{asked}:latest"}


def verdict_words(model: ModelStatus) -> str:
    return "resident and proved" if model.verdict == "proved" else f"{model.verdict}: {'; '.join(model.reasons)}"


def memory_words(model: ModelStatus) -> str:
    """Each figure with who says so."""
    parts = [
        f"{size(model.predicted_bytes)} on GPU predicted" if model.predicted_bytes is not None else "",
        f"{size(model.claimed_gpu_bytes)} of {size(model.claimed_bytes)} on GPU claimed" if model.claimed_bytes else "",
        f"{size(model.measured_bytes)} measured by NVML" if model.measured_bytes is not None else "",
        f"{size(model.runner_bytes)} of host memory held by its runner" if model.runner_bytes else "",
    ]
    return ", ".join(part for part in parts if part) or UNKNOWN
