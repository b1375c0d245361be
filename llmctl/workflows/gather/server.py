"""The server that the profile means: whether it answers, who has its port, and which settings it has."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving
from llmctl.core.address import Address, choose_address, parse_host
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.server import Answer, Listener, Program, Runner, ServerFacts, ServerProcess
from llmctl.core.server_state import Owner
from llmctl.errors import LlmctlError, ServerNotRunning, ServerUnreachable
from llmctl.server import port_of, store_of
from llmctl.system import pauses, process, systemd
from llmctl.workflows import store as stores
from llmctl.workflows.gather import processes
from llmctl.workflows.install import OPT

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.workflows.gather import Given

LAST_UP = "the last up"


def gather(given: Given) -> ServerFacts:
    server = given.server
    profile = profile_of(given)
    asker = processes.Asker(server.owner, given.environ.get("HOME", ""))
    found = processes.servers(asker)
    owned = server.owned()
    address = where(given, profile)
    holder = processes.listener(address.port) if address.local else None
    pid = pid_of(address, holder, owned)
    answer, words, version = ask(given, address, holder, next((one for one in found if one.pid == pid), None))
    forwarded = answer == "answers" and hands_on(holder, pid, owned, found)
    if answer == "stranger" or forwarded:
        # Whose port it is says the listener; its environment is no server's.
        pid = None
    own = owned is not None and owned.pid == pid
    runners = processes.runners(found, asker)
    facts = ServerFacts(
        address.url,
        address.origin,
        answer,
        words,
        version,
        owner_of(owned if own else None) if answer in {"answers", "silent"} else None,
        pid,
        *expected(given, profile),
        listener=holder,
        processes=found,
        runners=runners,
        lacks=lacks(profile, pid, runners) if answer == "answers" else None,
        store=store(pid, owned if own else None),
        held=held(given),
        forwarded=forwarded,
    )
    up, down = commands(given, profile)
    which = named(given, profile)
    return replace(facts, cli=cli(given, facts), up=up, down=down, root=as_root(given), which=which)


def profile_of(given: Given) -> Profile | None:
    try:
        return given.profile
    except NotGathered:
        return None


def where(given: Given, profile: Profile | None) -> Address:
    """Where the last `up` left the profile's server, if something is there; else where the next one looks for it."""
    state = given.server.state()
    if profile is None:
        return parse_host(state.base_url, LAST_UP) if state else choose_address(given.environ, None)
    own = given.server.address(profile)
    if state is None or state.profile != profile.reference or state.base_url == own.url:
        return own
    recorded = parse_host(state.base_url, LAST_UP)
    if own.origin == "free port" or not recorded.local or process.port_taken(recorded.host, recorded.port):
        return recorded
    return own


def pid_of(address: Address, holder: Listener | None, owned: process.Process | None) -> int | None:
    """The process behind the address: who listens, or the server of another user that must be the one."""
    if owned is not None and port_of(owned) == address.port:
        return owned.pid
    if holder is None:
        return None
    if holder.pid:
        return holder.pid
    found = process.server_at(address.port)
    return found.pid if found else None


def hands_on(
    holder: Listener | None, pid: int | None, owned: process.Process | None, found: tuple[ServerProcess, ...]
) -> bool:
    """Whether what listens is no server: ssh, docker-proxy and the like hand on what a server elsewhere answers."""
    if pid is not None:
        known = {one.pid for one in found} | ({owned.pid} if owned else set())
        # A wrapper of a distribution has another name than ollama.
        return pid not in known and not is_serving(process.read(pid))
    if holder is None or holder.user is None or not Path("/proc/1").exists():
        return False
    return not any(one.user == holder.user for one in found)


def is_serving(one: process.Process | None) -> bool:
    return one is not None and one.argv[1:2] == ("serve",)


def ask(
    given: Given, address: Address, holder: Listener | None, at: ServerProcess | None
) -> tuple[Answer, str, str | None]:
    """What answers, why it does not, and its version. One that is stopped by a signal would be waited for in vain."""
    if at is not None and at.stopped:
        return "silent", f"pid {at.pid} is stopped by a signal", None
    try:
        version = given.client(address.url).version()
    except ServerUnreachable as error:
        answer: Answer = "stranger" if holder is not None and at is None else "silent"
        return answer, error.message, None
    except ServerNotRunning as error:
        return "absent", error.message, None
    except LlmctlError as error:
        return "stranger", error.message, None
    if not version:
        return "stranger", f"what answers at {address.url} is not Ollama", None
    return "answers", "", version


def owner_of(owned: process.Process | None) -> Owner:
    if owned is None:
        return "foreign"
    return "systemd" if systemd.around(owned.pid) else "llmctl"


def expected(given: Given, profile: Profile | None) -> tuple[bool, bool]:
    """Whether a server should be there, and whether `down` ended it."""
    server = given.server
    up = server.state() is not None
    lock = given.of_profile.lock
    pinned = profile is not None and lock is not None and any(lock.pin(model.name) for model in profile.resident)
    ended = not up and server.last_profile() is not None
    return up or server.service is not None or pinned, ended


def lacks(profile: Profile | None, pid: int | None, runners: tuple[Runner, ...]) -> tuple[serving.Lack, ...] | None:
    """What differs from the profile; None where neither the server's environment nor a runner of it can be seen."""
    if profile is None or pid is None:
        return None
    environ = process.read_environ(pid)
    argv = next((runner.argv for runner in runners if runner.parent == pid), ())
    return serving.lacks(profile, environ, argv) if environ or argv else None


def store(pid: int | None, owned: process.Process | None) -> str | None:
    """The server's model folder, where its environment can be read."""
    found = owned or (process.read(pid) if pid else None)
    return store_of(found) if found is not None else None


def held(given: Given) -> str | None:
    """Why the guard keeps its hands off."""
    runtime = given.server.paths.runtime
    lease = pauses.leased(runtime)
    if lease is not None:
        return f"{processes.name_of((lease.command,))} (pid {lease.pid}) has the GPU" if lease.alive else None
    hold = pauses.held(runtime)
    return None if hold is None or hold.by == "down" else f"held by {hold.by}"


def commands(given: Given, profile: Profile | None) -> tuple[str, str]:
    """`up` and `down` for this profile, as this user must type them."""
    server = given.server
    service = server.service
    sudo = "sudo " if service is not None and service.scope == "system" and os.geteuid() != 0 else ""
    named = profile is not None and server.last_profile() != profile.reference and not server.is_of_service(profile)
    which = f" {shlex.quote(profile.reference)}" if profile is not None and named else ""
    return f"{sudo}llmctl up{which}", f"{sudo}llmctl down"


def as_root(given: Given) -> str:
    """llmctl with root's rights. sudo finds the one of a service; of a person's own it does not know the folder."""
    if os.geteuid() == 0:
        return "llmctl"
    return "sudo llmctl" if OPT.is_dir() else stores.sudo(given.server.paths)


def named(given: Given, profile: Profile | None) -> str:
    """The option that names the profile, where its service does not."""
    if profile is None or given.server.is_of_service(profile):
        return ""
    return f" --profile {shlex.quote(profile.reference)}"


def cli(given: Given, facts: ServerFacts) -> Program | None:
    """The `ollama` on PATH, where it is another program than the server's and would ask this server."""
    from llmctl.engines import found

    program = found.on_path(given.environ)
    try:
        asks = parse_host(given.environ.get("OLLAMA_HOST", ""), "OLLAMA_HOST").url
        if program is None or not facts.answers or asks != facts.url:
            return None
        if facts.process is not None and facts.process.program == str(program.resolve()) and not facts.process.replaced:
            return None
        return Program(str(program), found.version_of(program.resolve(), given.environ))
    except LlmctlError:
        return None
