"""What `up`, `down` and `status` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import UNKNOWN, duration, pairs, size

if TYPE_CHECKING:
    from llmctl.core.server_state import ActiveModel
    from llmctl.core.serving import Lack
    from llmctl.core.surroundings import Difference
    from llmctl.workflows.down import DownResult
    from llmctl.workflows.service import ServiceStatus
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
    words = "stopped" if result.changed else "nothing runs"
    return [f"{words}; it starts with the next boot, or with: {result.start}" if result.service else words]


def status_lines(status: Status, width: int) -> list[str]:
    if status.state == "stopped":
        told = service_rows(status.service) if status.service else []
        sudo = "sudo " if status.service and status.service.scope == "system" else ""
        return ["stopped", *([status.note] if status.note else []), *pairs(told, width), f"start it: {sudo}llmctl up"]
    rows = [
        ("state", f"running for {duration(status.uptime_seconds)}" if status.uptime_seconds else "running"),
        ("owner", OWNERS.get(status.owner or "", UNKNOWN) + (f", pid {status.pid}" if status.pid else "")),
        ("server", f"Ollama {status.engine_version} at {status.base_url}"),
        ("profile", status.profile or ""),
        *(service_rows(status.service) if status.service else []),
    ]
    lines = pairs(rows, width)
    for model in status.models:
        lines += ["", *model_lines(model, status, width)]
    if status.others:
        lines += ["", *pairs([("also loaded", ", ".join(status.others))], width)]
    return [*lines, *([status.note] if status.note else [])]


def service_rows(service: ServiceStatus) -> list[tuple[str, str]]:
    """The units, the guard, and what differs between the unit and the profile, or this shell."""
    restarts = f", started anew {service.restarts} times" if service.restarts else ""
    sudo, user = ("sudo ", "") if service.scope == "system" else ("", " --user")
    rows = [
        ("unit", f"{service.engine or UNKNOWN}{restarts}"),
        ("guard", ": ".join(filter(None, [service.guard or UNKNOWN, service.words]))),
    ]
    rows += [
        ("drift", f"{lack.setting} is {lack.found or 'not set'}, the profile says {lack.wanted}")
        for lack in service.drift
    ]
    if service.drift:
        rows.append(("", f"mend it: {sudo}llmctl install-service{user}"))
    return [*rows, *(("differs", difference_words(one, service)) for one in service.differences if one.matters)]


def difference_words(one: Difference, service: ServiceStatus) -> str:
    """One difference between the unit and this shell, for a person."""
    unit, shell = f"the unit ({service.unit.user})", f"this shell ({service.shell.user})"
    if one.what == "nodes":
        mine, its = (f"{shell} may open {one.shell}, {unit} may not"), (f"{unit} may open {one.unit}, {shell} may not")
        return "; ".join(words for nodes, words in ((one.shell, mine), (one.unit, its)) if nodes)
    if one.what == "ollama":
        return f"the unit runs {one.unit}, PATH here has {one.shell}"
    if one.what == "devices":
        return f"{unit} finds the GPUs {one.unit or 'none'}, {shell} {one.shell or 'none'}"
    return f"{one.what} is {one.shell} in this shell; the unit has {one.unit or 'none'}, and that holds"


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
