"""Every server and runner of Ollama on this machine, of /proc and of the runners' own port."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.client import runner as asking
from llmctl.core.address import DEFAULT_PORT, parse_host
from llmctl.core.checks.facts.server import STOPPED, Listener, Runner, ServerProcess
from llmctl.core.serving import MARKER
from llmctl.core.unit import ENGINE
from llmctl.errors import LlmctlError
from llmctl.system import gpu_health, process, vitals
from llmctl.workflows.gather.shell import of_interest, user_name

if TYPE_CHECKING:
    from llmctl.system.vitals import Vitals

BLOB = re.compile(r"/blobs/sha256-([0-9a-f]{64})$")
GONE = " (deleted)"


@dataclass(frozen=True)
class Asker:
    """Who asks: `owner` marks processes of this llmctl, `home` is this user's HOME."""

    owner: str
    home: str

    def mine(self, environ: Mapping[str, str]) -> bool:
        return environ.get(MARKER) == self.owner

    def apart(self, environ: Mapping[str, str], user: int) -> bool:
        """Whether a process of this user has a HOME of its own."""
        return user == os.geteuid() and not self.mine(environ) and environ.get("HOME") not in {None, self.home}


def servers(asker: Asker) -> tuple[ServerProcess, ...]:
    """Every `ollama serve`."""
    found = {one.pid: one for one in process.having("cmdline", "serve") if is_server(one)}
    # One that is about to become its runner still has its server's command line.
    seen = [(one, vitals.read(one.pid)) for one in found.values() if one.parent_pid not in found]
    return tuple(as_server(one, now, asker) for one, now in seen if now is not None)


def is_server(one: process.Process) -> bool:
    return one.program == "ollama" and one.argv[1:2] == ("serve",)


def as_server(one: process.Process, now: Vitals, asker: Asker) -> ServerProcess:
    from llmctl.server import store_of

    program = link(one.pid, "exe") or one.argv[0]
    return ServerProcess(
        one.pid,
        user_name(now.user),
        program.removesuffix(GONE),
        now.state,
        port_of(one.environ),
        store_of(one) if one.environ else None,
        of_interest(one.environ),
        now.age_seconds,
        mine=asker.mine(one.environ),
        apart=asker.apart(one.environ, now.user),
        here=is_here(one.pid),
        replaced=program.endswith(GONE),
        unit=unit_of(one.pid),
        scope="user" if in_user_manager(one.pid) else "system",
        parent=one.parent_pid,
    )


def port_of(environ: Mapping[str, str]) -> int | None:
    """Where a server with this environment listens; None where it cannot be read."""
    if not environ:
        return None
    host = environ.get("OLLAMA_HOST")
    if not host:
        return DEFAULT_PORT
    try:
        return parse_host(host, "OLLAMA_HOST").port
    except LlmctlError:
        return None


def link(pid: int, name: str) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - of the kernel, no path to resolve
    return None


def is_here(pid: int) -> bool:
    """Whether a process is not in a container: those have process numbers of their own (proc(5), NSpid)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [""])
    return len(numbers) == 1


def unit_of(pid: int) -> str | None:
    """The service of systemd that runs a server: Ollama's or llmctl's, not whatever a terminal or an agent lives in."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            for part in line.split("/"):
                if part.endswith(".service") and ("ollama" in part or part == ENGINE):
                    return part
    return None


def in_user_manager(pid: int) -> bool:
    try:
        return "/user.slice/" in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def runners(servers: tuple[ServerProcess, ...], asker: Asker) -> tuple[Runner, ...]:
    """Every llama-server that serves a blob of a store; others are no business of Ollama's."""
    pids = {server.pid for server in servers}
    found = [one for one in process.having("cmdline", "llama-server") if one.program == "llama-server"]
    seen = [
        as_runner(one, now, match[1], one.parent_pid if one.parent_pid in pids else None, asker)
        for one in found
        if (match := BLOB.search(one.argument("--model") or "")) and (now := vitals.read(one.pid)) is not None
    ]
    held = gpu_health.look(tuple(one.pid for one in seen)).held_bytes if seen else {}
    return tuple(asked(replace(one, gpu_bytes=held.get(one.pid))) for one in seen)


def as_runner(one: process.Process, now: Vitals, digest: str, parent: int | None, asker: Asker) -> Runner:
    return Runner(
        one.pid,
        user_name(now.user),
        parent,
        one.argv,
        now.state,
        process.resident_bytes(one.pid),
        None,
        "unasked",
        now.age_seconds,
        weights_digest=f"sha256:{digest}",
        mine=asker.mine(one.environ),
        apart=asker.apart(one.environ, now.user) or not is_here(one.pid),
    )


def asked(one: Runner) -> Runner:
    """With what it says of itself; one that does not answer within a second is watched while it does not."""
    port = process.Process(one.pid, 0, one.argv, {}).argument("--port")
    if one.state in STOPPED:
        return replace(one, health="silent", worked=False)
    if port is None or not port.isdigit() or not is_here(one.pid):
        return one
    before = vitals.read(one.pid)
    health = asking.health(int(port))
    if health != "silent" or before is None:
        return replace(one, health=health)
    after = vitals.read(one.pid)
    if after is None:
        return replace(one, health=health)
    return replace(one, health=health, state=after.state, worked=after.cpu_seconds > before.cpu_seconds)


def listener(port: int) -> Listener | None:
    """Who listens on a port of this machine; without a pid where it is another user's."""
    found = process.listener(port)
    if found is not None:
        now = vitals.read(found.pid)
        return Listener(found.pid, name_of(found.argv), user_name(now.user) if now else None)
    user = process.listening_user(port)
    return None if user is None else Listener(0, "", user_name(user))


def name_of(argv: tuple[str, ...]) -> str:
    """The program's name alone: what follows it is its own, and may be a secret. Some write it all into one word."""
    words = argv[0].split() if argv else []
    return Path(words[0]).name.rstrip(":") if words else ""
