"""Checks of the server's processes: its version, its runners, and how often they end."""

from __future__ import annotations

from itertools import pairwise

from llmctl.core.checks.causes import NO_SERVER
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.log import Load, LogFacts
from llmctl.core.checks.facts.server import Runner
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy
from llmctl.core.checks.logged import unsaid
from llmctl.core.checks.server_settings import set_anew
from llmctl.core.checks.wanted import ended_by, restarted, rights
from llmctl.core.checks.words import size
from llmctl.core.engine import WITHOUT_VERSION

OFTEN = 3
# How long a model stays where nobody says otherwise (ollama v0.34.0 envconfig/config.go:129).
KEEP_ALIVE_SECONDS = 300.0


def version_differs(facts: Facts) -> Judgement:
    server = facts.server
    if server.version is None:
        return None
    profile = facts.profile.profile
    wanted = profile.engine.version if profile is not None else None
    process, found = server.process, []
    if wanted is not None and wanted != server.version:
        expected = f"Ollama {wanted}, as the profile asks"
        found.append(Finding(f"Ollama {server.version} answers", expected, in_version(facts)))
    if process is not None and process.replaced:
        found.append(
            Finding(
                f"the running server is Ollama {server.version} of a file that is no longer there: {process.program}",
                "the program that is on the disk now",
                Remedy("start it anew, so that it runs what is installed", restarted(facts)),
                subject=f"pid {process.pid}",
            )
        )
    elif server.cli is not None and server.cli.version != server.version:
        found.append(
            Finding(
                f"{server.cli.path} is {server.cli.version}, the server {server.version}",
                "one version of both: the client may ask for what the server does not know",
                Remedy(
                    "call the server's own program, or bring the one on PATH to its version",
                    (f"{process.program} --version" if process else "ollama --version",),
                ),
            )
        )
    return found


def in_version(facts: Facts) -> Remedy:
    """`up` attaches to no server of another version that is not llmctl's; its own, of the same settings, it leaves."""
    server = facts.server
    if server.owner == "foreign":
        return Remedy(WITHOUT_VERSION, (server.up,))
    anew = set_anew(facts, []) if server.owner == "systemd" else (server.down, server.up)
    return Remedy("start the version that the profile asks for", anew)


def orphaned_runner(facts: Facts) -> Judgement:
    server = facts.server
    found = [runner for runner in server.orphans if not runner.apart or runner.gpu_bytes]
    if not found:
        return None
    mine = [runner for runner in found if runner.mine]
    others = [runner for runner in found if not runner.mine]
    told = tuple(orphan_words(runner) for runner in found)
    commands = ((server.down, server.up) if mine else ()) + tuple(
        f"{rights(runner.user, facts)}kill {runner.pid}" for runner in others
    )
    return Finding(
        f"{len(found)} llama-server whose `ollama serve` is gone, holding {held_by(found)}",
        "every llama-server with its server: nothing unloads one without it",
        Remedy("end them; nobody can use them any more", commands),
        told,
    )


def held_by(found: list[Runner]) -> str:
    on_gpus = sum(runner.gpu_bytes or 0 for runner in found)
    in_memory = sum(runner.resident_bytes or 0 for runner in found)
    return f"{size(on_gpus)} on GPUs and {size(in_memory)} in memory" if on_gpus else f"{size(in_memory)} in memory"


def orphan_words(runner: Runner) -> str:
    digest = (runner.weights_digest or "")[7:19]
    return (
        f"pid {runner.pid} of {runner.user}: llama-server of weights {digest}, {held_by([runner])}, no server over it"
    )


def stuck_runner(facts: Facts) -> Judgement:
    server = facts.server
    return [
        stuck(facts, runner)
        for runner in server.runners
        if server.pid is not None and runner.parent == server.pid and is_stuck(runner)
    ]


def is_stuck(runner: Runner) -> bool:
    """Stopped by a signal; or silent while it did nothing, which one that computes is not."""
    return runner.stopped or (runner.health == "silent" and runner.worked is False)


def stuck(facts: Facts, runner: Runner) -> Finding:
    sudo = rights(runner.user, facts)
    if runner.stopped:
        observed = f"llama-server (pid {runner.pid}) is stopped by a signal"
        commands: tuple[str, ...] = (f"{sudo}kill -CONT {runner.pid}",)
        text = "let it go on; where it stops again, start the server anew"
    else:
        observed = f"llama-server (pid {runner.pid}) does not answer at /health and used no CPU time meanwhile"
        commands = (f"{sudo}kill -9 {runner.pid}",)
        text = "end it: the next request loads the model anew; where it hangs again, look at the kernel's log"
    return Finding(
        observed,
        "a runner that answers within 1 s",
        Remedy(text, commands + restarted(facts)),
        subject=f"pid {runner.pid}",
    )


def crash_loop(facts: Facts) -> Judgement:
    ended = facts.log.runner_ended
    if ended is None:
        return unsaid(facts.log)
    count = max(loaded_again(facts.log), ended.lately)
    if not ended.lately or count < OFTEN:
        return None
    return Finding(
        f"the runner ended by itself, and the same model was loaded again {count} times within the last hour",
        "a runner that lives as long as its model is wanted",
        Remedy(
            "see what it said before it ended, and whether the model's files are whole",
            ("llmctl logs -n 200", "llmctl verify"),
        ),
        (ended.text,),
    )


def loaded_again(log: LogFacts) -> int:
    """Not every end leaves a line; that the same is loaded again soon, with nothing in between, tells of the others."""
    return sum(
        (one.weights_digest, one.context) == (two.weights_digest, two.context) and not idled(one, two)
        for one, two in pairwise(log.recent_loads)
    )


def idled(one: Load, two: Load) -> bool:
    """Whether the model may have been unloaded by its keep-alive in between."""
    if one.at_seconds is None or two.at_seconds is None:
        return False
    return two.at_seconds - one.at_seconds >= KEEP_ALIVE_SECONDS


def foreign(facts: Facts) -> Judgement:
    server, process = facts.server, facts.server.process
    if not server.answers or server.owner != "foreign" or process is None or process.unit is not None:
        return None
    return Finding(
        f"pid {process.pid} of {process.user} is a server that no unit of systemd runs, and llmctl did not start",
        "a server that is started again after a crash and at the next boot",
        Remedy(
            "end it and let llmctl run one as a service; or leave it, and start it yourself when it ends",
            (ended_by(process, facts), f"llmctl install-service --user{server.which}"),
        ),
        (process.program,),
        f"pid {process.pid}",
    )


CHECKS = (
    Check(
        "server.version-differs",
        "Two versions of Ollama",
        "warning",
        "What /api/version says is compared with the profile's engine.version, with the file on the disk, and with the "
        "`ollama` on PATH where its commands reach this server (ollama issues 12135, 14199). A server whose file was "
        "replaced goes on with the old one, and loads runners of the new one.",
        version_differs,
        after=NO_SERVER,
    ),
    Check(
        "server.orphaned-runner",
        "A runner without its server",
        "error",
        "When `ollama serve` is killed, its llama-server lives on and keeps its memory (ollama issue 5642; v0.34.0 "
        "llm/llm_linux.go sets no death signal). One is known by the blob of a store in its arguments, and by a "
        "parent that is no `ollama serve`.",
        orphaned_runner,
        after=("server.not-running", "server.hangs", "server.port-taken", "server.host-without-port"),
    ),
    Check(
        "server.stuck-runner",
        "A runner hangs",
        "error",
        "The server answers while its runner does not: requests to the model wait without a limit (ollama v0.34.0 "
        "llm/llama_server.go:190-197, a client without a timeout). A runner counts as stuck when it is stopped by a "
        "signal, or silent at /health for 1 s in which it used no CPU time. It answers /health while it computes.",
        stuck_runner,
        after=NO_SERVER,
    ),
    Check(
        "server.crash-loop",
        "The runner ends again and again",
        "warning",
        "Ollama loads a model again when its runner has ended, and counts nothing (ollama issues 17089, 9782). Its "
        "log has a line for most ends that it did not ask for (v0.34.0 llm/llama_server.go:1196), and one for each "
        "load; three of them within the last hour are a loop. Of loads that are five minutes apart the "
        "keep-alive may be the cause.",
        crash_loop,
        after=NO_SERVER,
    ),
    Check(
        "server.foreign",
        "Nobody starts this server again",
        "info",
        "A server that llmctl did not start is attached: its models are loaded and watched, and it is never stopped or "
        "started. One that runs outside systemd is gone after a crash or a boot.",
        foreign,
        after=NO_SERVER,
    ),
)
