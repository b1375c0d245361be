"""What several families of checks ask of the facts: whether a GPU is wanted, and whose a process is."""

from __future__ import annotations

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.gpu import Card, GpuProcess
from llmctl.core.checks.finding import Severity
from llmctl.core.checks.words import size


def gpu_required(facts: Facts) -> bool:
    profile = facts.profile.profile
    return profile is not None and profile.gpu.require != "none"


def severity(facts: Facts) -> Severity:
    """Of what keeps a GPU from being used: where none is required, nothing is broken by it."""
    return "error" if gpu_required(facts) else "warning"


def on_gpu(facts: Facts) -> bool:
    """Whether every resident model is proved to lie on a GPU, whichever driver it has. False where that is unknown."""
    try:
        proofs = [model.proof for model in facts.models.resident]
    except NotGathered:
        return False
    return bool(proofs) and all(
        proof is not None and proof.verdict == "proved" and proof.place in {"gpu", "partial"} for proof in proofs
    )


def runners(facts: Facts) -> frozenset[int]:
    """Every llama-server of an Ollama here, orphans too: other checks are about those."""
    try:
        return frozenset(runner.pid for runner in facts.server.runners)
    except NotGathered:
        return frozenset()


def others(card: Card, facts: Facts) -> tuple[GpuProcess, ...]:
    """Who holds memory of the card beside this server's own runners, the largest first."""
    try:
        server = facts.server
        own = {runner.pid for runner in server.runners if server.pid is not None and runner.parent == server.pid}
    except NotGathered:
        own = set()
    return tuple(process for process in card.processes if process.pid not in own)


def holder(process: GpuProcess) -> str:
    held = "an unknown amount" if process.held_bytes is None else size(process.held_bytes)
    user = f" of {process.user}" if process.user else ""
    return f"{process.name} (pid {process.pid}{user}) holds {held}"


def anew_without(variable: str, facts: Facts) -> tuple[str, ...]:
    """The commands that start the server again without a variable, as far as this user can be told."""
    server = facts.server
    if server.owner == "llmctl" or server.pid is None:
        return (f"unset {variable}", *((server.down,) if server.pid else ()), server.up)
    unit = server.process.unit if server.process else None
    if unit is not None:
        return (f"sudo systemctl edit {unit}", f"sudo systemctl restart {unit}")
    return (f"unset {variable}", f"ps -o pid,user,lstart,args -p {server.pid}")
