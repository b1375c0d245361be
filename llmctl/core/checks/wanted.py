"""What several families of checks ask of the facts: whether a GPU is wanted, and whose a process is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.gpu import Card, GpuProcess
from llmctl.core.checks.facts.server import ServerProcess
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


def systemctl(process: ServerProcess) -> str:
    """How the manager of a server's unit is called."""
    return "systemctl --user" if process.scope == "user" else "sudo systemctl"


def rights(user: str | None, facts: Facts) -> str:
    """What a command on a process of this user begins with."""
    return "sudo " if user != facts.shell.user and facts.shell.uid != 0 else ""


def look_at(process: ServerProcess) -> str:
    if process.unit is not None and process.scope == "system":
        return f"systemctl status {process.unit}"
    return f"ps -o pid,user,lstart,args -p {process.pid}"


def is_mine(process: ServerProcess, facts: Facts) -> bool:
    """Whether it is this user's own, and not in a container: nobody is told to end what is another's."""
    return process.here and process.user in {None, facts.shell.user}


def ended_by(process: ServerProcess, facts: Facts) -> str:
    """The command that ends a server: its unit's where it has one, for that would start it again."""
    if not is_mine(process, facts):
        return look_at(process)
    return f"{systemctl(process)} stop {process.unit}" if process.unit is not None else f"kill {process.pid}"


def restarted(facts: Facts, said: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The commands that start the profile's server anew, by whoever runs it; by hand with the variables in `said`."""
    server, process = facts.server, facts.server.process
    if server.owner != "foreign":
        return (server.down, server.up)
    if process is None:
        return ("llmctl status",)
    if process.unit is not None and (process.scope == "system" or is_mine(process, facts)):
        return (f"{systemctl(process)} restart {process.unit}", server.up)
    if not is_mine(process, facts):
        return (look_at(process),)
    kept = {name: process.environ[name] for name in ("OLLAMA_HOST", "OLLAMA_MODELS") if name in process.environ}
    words = [f"{name}={shlex.quote(value)}" for name, value in {**kept, **(said or {})}.items()]
    return (f"kill {process.pid}", " ".join([*words, "ollama serve"]))


def anew_with(facts: Facts, said: Mapping[str, str]) -> tuple[str, ...]:
    """The commands that start the server with these variables, or without those whose value is empty, which a unit of
    systemd has in a drop-in. What the profile decides is not set so."""
    server, process = facts.server, facts.server.process
    if process is not None and process.unit is not None and server.owner != "llmctl":
        first, *rest = restarted(facts)
        if " restart " in first:
            return (f"{systemctl(process)} edit {process.unit}", first, *rest)
    return (*(f"unset {name}" for name in said if name in facts.shell.environ), *restarted(facts, said))
