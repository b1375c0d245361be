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


def by_unit(process: ServerProcess | None, facts: Facts) -> bool:
    """Whether a unit of systemd runs it that this user may change, as themselves or with sudo."""
    return process is not None and process.unit is not None and (process.scope == "system" or is_mine(process, facts))


def restarted(facts: Facts, said: Mapping[str, str] | None = None, between: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The commands that start the profile's server anew, by whoever runs it: a unit, llmctl, or somebody's hand, then
    with the variables in `said`. `between` are commands for while it is down."""
    server, process = facts.server, facts.server.process
    if server.owner != "foreign":
        return (*((server.down,) if server.pid else ()), *between, server.up)
    if process is None:
        return (*between, "llmctl status")
    if by_unit(process, facts):
        with_unit = (f"{systemctl(process)} {{}} {process.unit}").format
        again = (with_unit("stop"), *between, with_unit("start")) if between else (with_unit("restart"),)
        return (*again, server.up)
    if not is_mine(process, facts):
        return (*between, look_at(process))
    kept = {name: process.environ[name] for name in ("OLLAMA_HOST", "OLLAMA_MODELS") if name in process.environ}
    words = [f"{name}={shlex.quote(value)}" for name, value in {**kept, **(said or {})}.items() if value]
    return (f"kill {process.pid}", *between, " ".join([*words, "ollama serve"]))


def edited(process: ServerProcess) -> tuple[str, ...]:
    """The commands that change what its unit says, and let that count."""
    return (f"{systemctl(process)} edit {process.unit}", f"{systemctl(process)} restart {process.unit}")


def anew_with(facts: Facts, said: Mapping[str, str]) -> tuple[str, ...]:
    """The commands that start the server with these variables, or without those whose value is empty: what a unit has
    is edited there. Not for what the profile decides."""
    process = facts.server.process
    if facts.server.owner != "llmctl" and process is not None and by_unit(process, facts):
        return edited(process)
    own = facts.server.owner != "foreign"
    unset = (f"unset {name}" for name, value in said.items() if not value or (own and name in facts.shell.environ))
    return (*unset, *restarted(facts, said))


def anew_without(variable: str, facts: Facts) -> tuple[str, ...]:
    return anew_with(facts, {variable: ""})
