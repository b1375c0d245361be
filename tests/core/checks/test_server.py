"""The server's checks on facts: the edges that a real server shows too seldom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from llmctl.core.checks import server
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.checks.facts.log import Load, LogFacts, LogLine
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.server import Answer, Listener, Program, Runner, ServerFacts, ServerProcess
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.checks.wanted import anew_with, restarted
from llmctl.core.profile import EngineSpec, ModelSpec, Profile, ServerSpec
from llmctl.core.server_state import Owner
from llmctl.core.serving import Lack
from llmctl.core.unit import Scope

WEIGHTS = "sha256:" + "ab" * 32
URL = "http://127.0.0.1:11434"
PROCESS = ServerProcess(
    7, "ann", "/usr/bin/ollama", "S", 11434, "/home/ann/.ollama/models", {"HOME": "/home/ann"}, 1000.0
)
RUNNER = Runner(8, "ann", 7, ("llama-server",), "S", 1 << 30, None, "ok", 900.0, WEIGHTS)
ABSENT = ServerFacts(URL, "profile", "absent", f"no server at {URL}", expected=True)
ANSWERS = ServerFacts(
    URL, "profile", "answers", version="0.34.0", owner="llmctl", pid=7, expected=True, processes=(PROCESS,), lacks=()
)
NOW = 10_000.0
LOG = LogFacts("log", 100, since_start=True, now_seconds=NOW)
PROFILE = Profile("mine", (ModelSpec("m"),))


HOST_WITHOUT_PORT = "server.host-without-port"
LOOK_AT_9 = "ps -o pid,user,lstart,args -p 9"


def facts(found: ServerFacts, **areas: Any) -> Facts:
    usual: dict[str, object] = {
        "shell": ShellFacts("ann", 1000, {}, None, False),
        "profile": ProfileFacts(PROFILE),
        "engine": EngineFacts("/usr/bin/ollama", "0.34.0", None, "/usr/lib/llama-server", None, ()),
        "server": found,
        "log": LOG,
        "models": ModelsFacts("none", (), ()),
    }
    return Facts({**usual, **areas})


def outcomes(found: Facts) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in examine(server.CHECKS, found)}


def ids(found: Facts) -> list[str]:
    return [name for name, outcome in outcomes(found).items() if outcome.state == "found"]


def first(found: Facts, check: str) -> Any:
    return outcomes(found)[check].findings[0]


def shell(**environ: str) -> ShellFacts:
    return ShellFacts("ann", 1000, environ, None, False)


def test_a_server_that_is_as_it_should_be() -> None:
    found = outcomes(facts(replace(ANSWERS, runners=(RUNNER,))))
    assert {outcome.state for outcome in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("http://127.0.0.1", True),
        ("http://box.lan/", True),
        ("http://[::1]", True),
        ('"http://127.0.0.1"', True),
        ("http://::1", True),
        ("http://127.0.0.1:", True),
        ("http://127.0.0.1/a:1", True),
        ("http://127.0.0.1:11434", False),
        ("http://[::1]:11434", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_which_addresses_mean_port_80(value: str, wrong: bool) -> None:
    found = facts(replace(ABSENT, origin="OLLAMA_HOST"), shell=shell(OLLAMA_HOST=value))
    assert ids(found) == ["server.host-without-port" if wrong else "server.not-running"]


@pytest.mark.parametrize(
    ("value", "commands"),
    [
        ("http://box.lan", ("export OLLAMA_HOST=http://box.lan:11434",)),
        ("http://box.lan/x/", ("export OLLAMA_HOST=http://box.lan:11434",)),
        ('"http://box.lan/"', ("export OLLAMA_HOST=http://box.lan:11434",)),
        ("http://[::1]", ("export OLLAMA_HOST='http://[::1]:11434'",)),
        ("http://::1/", ("export OLLAMA_HOST='http://[::1]:11434'",)),
        ("http://", ("export OLLAMA_HOST=http://127.0.0.1:11434",)),
        ("http://a;b", ("export OLLAMA_HOST='http://a;b:11434'",)),
    ],
)
def test_the_port_is_written_behind_the_host(value: str, commands: tuple[str, ...]) -> None:
    found = first(facts(replace(ABSENT, origin="OLLAMA_HOST"), shell=shell(OLLAMA_HOST=value)), HOST_WITHOUT_PORT)
    assert found.remedy.commands == commands
    bound = replace(PROCESS, pid=9, port=80, environ={"OLLAMA_HOST": value})
    found = first(facts(replace(ABSENT, processes=(bound,))), HOST_WITHOUT_PORT)
    assert found.remedy.commands[1] == f"{commands[0].removeprefix('export ')} ollama serve"


def test_a_variable_that_nobody_reads_is_no_cause() -> None:
    assert ids(facts(ABSENT, shell=shell(OLLAMA_HOST="http://127.0.0.1"))) == ["server.not-running"]


def test_a_server_that_was_told_http_and_no_port() -> None:
    other = replace(PROCESS, pid=9, port=80, environ={"OLLAMA_HOST": "http://0.0.0.0"})
    found = first(facts(replace(ABSENT, processes=(other,))), "server.host-without-port")
    assert found.subject == "pid 9"
    assert found.expected == "http://0.0.0.0:11434"
    assert "server.host-without-port" not in ids(facts(replace(ANSWERS, processes=(PROCESS, other))))


def test_a_port_whose_holder_this_user_may_not_see() -> None:
    found = first(facts(replace(ABSENT, answer="stranger", listener=Listener(0, "", "root"))), "server.port-taken")
    assert found.observed.startswith("a program of root that this user may not see")
    assert found.remedy.commands == ("sudo ss -ltnp sport = :11434", "llmctl up")


def test_a_server_that_has_just_started_may_be_silent() -> None:
    young = replace(ANSWERS, answer="silent", words="no answer", processes=(replace(PROCESS, uptime_seconds=5.0),))
    assert outcomes(facts(young))["server.hangs"].state == "unknown"
    stopped = replace(young, processes=(replace(PROCESS, uptime_seconds=5.0, state="T"),))
    assert "kill -CONT 7" in first(facts(stopped), "server.hangs").remedy.commands
    others = replace(young, owner="foreign", processes=(replace(PROCESS, user="bob", unit="ollama.service"),))
    assert first(facts(others), "server.hangs").remedy.commands[-2] == "sudo systemctl restart ollama.service"


def test_how_bad_it_is_that_nothing_runs() -> None:
    assert first(facts(ABSENT), "server.not-running").severity is None
    ended = first(facts(replace(ABSENT, ended=True)), "server.not-running")
    assert (ended.severity, ended.remedy.safe) == ("warning", False)
    never = first(facts(replace(ABSENT, expected=False)), "server.not-running")
    assert (never.severity, never.remedy.safe) == ("warning", False)
    of_root = first(facts(replace(ABSENT, up="sudo llmctl up")), "server.not-running")
    assert not of_root.remedy.safe


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({}, True),
        ({"apart": True}, False),
        ({"apart": True, "store": PROCESS.store}, True),
        ({"here": False}, False),
        ({"user": "bob", "store": None, "environ": {}}, True),
    ],
)
def test_which_servers_count_as_a_second_one(other: dict[str, Any], counts: bool) -> None:
    second = replace(PROCESS, **{"pid": 9, "store": "/elsewhere", **other})
    found = facts(replace(ANSWERS, store=PROCESS.store, processes=(PROCESS, second)))
    assert ids(found) == (["server.second"] if counts else [])
    if counts and second.store != PROCESS.store:
        assert first(found, "server.second").severity == "info"
        busy = replace(RUNNER, pid=10, parent=9)
        found = facts(replace(ANSWERS, store=PROCESS.store, processes=(PROCESS, second), runners=(busy,)))
    assert not counts or first(found, "server.second").severity is None
    absent = ids(facts(replace(ABSENT, store=PROCESS.store, processes=(second,))))
    assert absent == ["server.two-servers" if counts else "server.not-running"]


def test_a_private_server_is_beside_others_on_purpose() -> None:
    private = ProfileFacts(replace(PROFILE, private=True))
    other = replace(PROCESS, pid=9, user="ollama", unit="ollama.service")
    busy = replace(RUNNER, pid=10, parent=9)
    up = replace(ANSWERS, processes=(PROCESS, other), runners=(busy,))
    assert (ids(facts(up)), ids(facts(up, profile=private))) == (["server.second"], [])
    down = replace(ABSENT, expected=False, processes=(other,))
    assert ids(facts(down)) == ["server.two-servers"]
    assert ids(facts(down, profile=private)) == ["server.not-running"]


@pytest.mark.parametrize(
    ("other", "command", "anew"),
    [
        ({}, "kill 9", ("kill 9", "OLLAMA_HOST=http://0.0.0.0:11434 ollama serve")),
        (
            {"unit": "ollama.service", "scope": "user"},
            "systemctl --user stop ollama.service",
            ("systemctl --user edit ollama.service", "systemctl --user restart ollama.service"),
        ),
        ({"user": "bob"}, LOOK_AT_9, (LOOK_AT_9,)),
        ({"user": "bob", "unit": "ollama.service", "scope": "user"}, LOOK_AT_9, (LOOK_AT_9,)),
        (
            {"user": "ollama", "unit": "ollama.service"},
            "systemctl status ollama.service",
            ("sudo systemctl edit ollama.service", "sudo systemctl restart ollama.service"),
        ),
    ],
)
def test_nobody_is_told_to_end_another_users_server(other: dict[str, Any], command: str, anew: tuple[str, ...]) -> None:
    """Nor to start a second one beside that of a unit."""
    second = replace(PROCESS, **{"pid": 9, "environ": {"OLLAMA_HOST": "http://0.0.0.0"}, **other})
    up = first(facts(replace(ANSWERS, processes=(PROCESS, second))), "server.second")
    assert up.remedy.commands == (command,)
    assert first(facts(replace(ABSENT, processes=(second,))), "server.host-without-port").remedy.commands == anew


def test_a_server_of_which_nobody_tells_the_process_is_not_beside_itself() -> None:
    theirs = [replace(PROCESS, pid=pid, user="ollama", environ={}, store=None) for pid in (20, 21)]
    unseen = replace(ANSWERS, owner="foreign", pid=None, listener=Listener(0, "", "ollama"), lacks=())
    assert ids(facts(replace(unseen, processes=tuple(theirs)))) == []
    assert ids(facts(replace(unseen, processes=(*theirs, PROCESS)))) == ["server.second"]
    remote = replace(ABSENT, url="http://box.lan:11434", processes=(PROCESS,))
    assert ids(facts(remote)) == ["server.not-running"]


def test_versions() -> None:
    def words(seen: ServerFacts, wanted: str | None = None) -> list[str]:
        profile = ProfileFacts(replace(PROFILE, engine=EngineSpec(version=wanted)))
        return [
            finding.observed for finding in outcomes(facts(seen, profile=profile))["server.version-differs"].findings
        ]

    assert words(ANSWERS, "0.34.0") == []
    assert words(ANSWERS, "0.33.0") == ["Ollama 0.34.0 answers"]
    assert words(replace(ANSWERS, cli=Program("/usr/bin/ollama", "0.34.0"))) == []
    assert words(replace(ANSWERS, cli=Program("/opt/ollama", "0.31.1"))) == ["/opt/ollama is 0.31.1, the server 0.34.0"]
    assert words(replace(ANSWERS, processes=(replace(PROCESS, replaced=True),)))[0].endswith("/usr/bin/ollama")


@pytest.mark.parametrize(
    ("owner", "scope", "words", "commands"),
    [
        ("llmctl", "system", "start the version", ("llmctl down", "llmctl up")),
        ("systemd", "system", "start the version", ("sudo llmctl install-service",)),
        ("systemd", "user", "start the version", ("llmctl install-service --user",)),
        ("foreign", "system", "set server.port in the profile to another port", ("llmctl up",)),
    ],
)
def test_how_a_server_gets_the_profiles_version(
    owner: Owner, scope: Scope, words: str, commands: tuple[str, ...]
) -> None:
    profile = ProfileFacts(replace(PROFILE, engine=EngineSpec(version="0.33.0")))
    seen = replace(ANSWERS, owner=owner, processes=(replace(PROCESS, scope=scope),))
    remedy = first(facts(seen, profile=profile), "server.version-differs").remedy
    assert remedy.text.startswith(words)
    assert remedy.commands == commands


def test_which_orphans_are_told_of_and_how_they_are_ended() -> None:
    orphan = replace(RUNNER, parent=None)
    found = first(facts(replace(ANSWERS, runners=(orphan,))), "server.orphaned-runner")
    assert found.observed.endswith("holding 1.0 GiB in memory")
    assert found.remedy.commands == ("kill 8",)
    mine = first(facts(replace(ANSWERS, runners=(replace(orphan, mine=True),))), "server.orphaned-runner")
    assert mine.remedy.commands == ("llmctl down", "llmctl up")
    of_root = first(facts(replace(ANSWERS, runners=(replace(orphan, user="root"),))), "server.orphaned-runner")
    assert of_root.remedy.commands == ("sudo kill 8",)
    assert ids(facts(replace(ANSWERS, runners=(replace(orphan, apart=True),)))) == []
    held = replace(orphan, apart=True, gpu_bytes=2 << 30)
    assert "2.0 GiB on GPUs" in first(facts(replace(ANSWERS, runners=(held,))), "server.orphaned-runner").observed


@pytest.mark.parametrize(
    ("change", "stuck"),
    [
        ({"health": "silent", "worked": False}, True),
        ({"health": "silent", "worked": True}, False),
        ({"health": "silent", "worked": None}, False),
        ({"health": "loading"}, False),
        ({"state": "T"}, True),
        ({"state": "T", "parent": 99}, False),
    ],
)
def test_which_runners_are_stuck(change: dict[str, Any], stuck: bool) -> None:
    found = facts(replace(ANSWERS, runners=(replace(RUNNER, **change),)))
    assert ids(found) == (["server.stuck-runner"] if stuck else [])


def loads(*contexts: int, apart_seconds: float = 60.0) -> tuple[Load, ...]:
    """The last of them is now."""
    last = len(contexts) - 1
    return tuple(Load(WEIGHTS, each, 1, NOW - (last - n) * apart_seconds) for n, each in enumerate(contexts))


def test_a_loop_is_of_the_same_load_within_an_hour_and_of_runners_that_ended() -> None:
    ended = LogLine("killed", 1)

    def found(log: LogFacts) -> list[str]:
        return ids(facts(ANSWERS, log=log))

    assert found(replace(LOG, runner_ended=ended, loads=loads(2048, 2048, 2048, 2048))) == ["server.crash-loop"]
    assert found(replace(LOG, runner_ended=replace(ended, count=3))) == ["server.crash-loop"]
    assert found(replace(LOG, loads=loads(2048, 2048, 2048, 2048))) == []
    assert found(replace(LOG, runner_ended=ended, loads=loads(2048, 512, 2048, 512, 2048))) == []
    assert found(replace(LOG, runner_ended=replace(ended, count=9, recent=2))) == []
    once = replace(LOG, runner_ended=ended)
    for apart_seconds in (7200, 300):
        assert found(replace(once, loads=loads(2048, 2048, 2048, 2048, apart_seconds=apart_seconds))) == []
    storm = replace(once, loads=loads(2048, 2048, 2048, 2048))
    assert found(replace(storm, now_seconds=NOW + 7200)) == [], "of the last hour"
    assert found(replace(storm, runner_ended=replace(ended, recent=0))) == []
    short = replace(LOG, since_start=False, complete_from=NOW - 60)
    assert outcomes(facts(ANSWERS, log=short))["server.crash-loop"].state == "unknown"
    assert outcomes(Facts({**facts(ANSWERS).areas, "log": None}))["server.crash-loop"].state == "unknown"


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("OLLAMA_FLASH_ATTENTION", "off", True),
        ("OLLAMA_NO_CLOUD", "no", True),
        ("OLLAMA_NOPRUNE", "none", True),
        ("OLLAMA_FLASH_ATTENTION", "yes", False),
        ("OLLAMA_FLASH_ATTENTION", "False", False),
        ("OLLAMA_FLASH_ATTENTION", "F", False),
        ("OLLAMA_FLASH_ATTENTION", '"0"', False),
        ("OLLAMA_FLASH_ATTENTION", "'off'", True),
        ("OLLAMA_FLASH_ATTENTION", "fALSE", True),
        ("OLLAMA_FLASH_ATTENTION", "tRUE", False),
        ("OLLAMA_FLASH_ATTENTION", "", False),
        ("OLLAMA_DEBUG", "off", False),
        ("OLLAMA_KV_CACHE_TYPE", "off", False),
    ],
)
def test_which_words_ollama_takes_for_true(name: str, value: str, wrong: bool) -> None:
    found = facts(replace(ANSWERS, processes=(replace(PROCESS, environ={name: value}),)))
    assert ids(found) == (["server.go-bool"] if wrong else [])


@pytest.mark.parametrize(
    ("value", "readable"),
    [
        *[(value, True) for value in ("-1", "300", "5m", "1h30m", "-1m", "", "2.5h", '"-1"')],
        *[(value, False) for value in ("forever", "5 minutes", "1d", "never")],
    ],
)
def test_which_keep_alives_ollama_reads(value: str, readable: bool) -> None:
    found = facts(replace(ANSWERS, processes=(replace(PROCESS, environ={"OLLAMA_KEEP_ALIVE": value}),)))
    assert ids(found) == ([] if readable else ["server.keep-alive"])


def test_settings_are_read_of_the_log_where_nothing_else_tells() -> None:
    theirs = replace(ANSWERS, owner="foreign", lacks=None, processes=(replace(PROCESS, unit="ollama.service"),))
    assert outcomes(facts(theirs))["server.settings"].state == "unknown"
    config = {
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_KEEP_ALIVE": "2562047h47m16.854775807s",
        "OLLAMA_KV_CACHE_TYPE": "",
        "OLLAMA_MAX_LOADED_MODELS": "0",
        "OLLAMA_NO_CLOUD": "true",
        "OLLAMA_NUM_PARALLEL": "1",
        "LLAMA_ARG_FIT": "",
    }
    found = first(facts(theirs, log=replace(LOG, config=config)), "server.settings")
    assert found.observed == ("OLLAMA_CONTEXT_LENGTH is 4096; OLLAMA_MAX_LOADED_MODELS is 0; LLAMA_ARG_FIT is not set")
    assert found.remedy.commands == ("sudo llmctl install-service --adopt",)


def test_how_a_setting_is_set() -> None:
    lack = Lack("OLLAMA_CONTEXT_LENGTH", "8192", None)

    def commands(seen: ServerFacts) -> tuple[tuple[str, ...], bool]:
        remedy = first(facts(replace(seen, lacks=(lack,))), "server.settings").remedy
        return remedy.commands, remedy.safe

    assert commands(ANSWERS) == (("llmctl up",), True)
    hers = replace(ANSWERS, owner="systemd", processes=(replace(PROCESS, scope="user"),), which=" --profile mine")
    assert commands(hers) == (("llmctl install-service --user --profile mine",), False)
    of_machine = replace(ANSWERS, owner="systemd", up="sudo llmctl up")
    assert commands(of_machine) == (("sudo llmctl install-service",), False)
    ollamas = replace(
        ANSWERS,
        owner="foreign",
        processes=(replace(PROCESS, user="ollama", unit="ollama.service"),),
        root='sudo "$(command -v llmctl)"',
        which=" --profile mine",
    )
    assert commands(ollamas) == (('sudo "$(command -v llmctl)" install-service --adopt --profile mine',), False)
    theirs = replace(
        ANSWERS, owner="foreign", processes=(replace(PROCESS, environ={"OLLAMA_HOST": "127.0.0.1:11434"}),)
    )
    by_hand = "OLLAMA_HOST=127.0.0.1:11434 OLLAMA_CONTEXT_LENGTH=8192 ollama serve"
    assert commands(theirs) == (("kill 7", by_hand), False)


def resident(context: int, *argv: str) -> ModelsFacts:
    loaded = LoadedFacts("m", "d", context, 0, 0, None, WEIGHTS)
    one = ResidentFacts("m", "m", frozenset(), WEIGHTS, 8192, loaded, None, None, None, 8, ("llama-server", *argv))
    return ModelsFacts("none", (one,), (loaded,))


def test_the_context_is_cut_only_where_the_log_says_so() -> None:
    line = 'msg="requested context size too large for model" num_ctx=8192 n_ctx_train=2048'
    capped = replace(LOG, context_capped=LogLine(line, 1))
    assert ids(facts(ANSWERS, models=resident(2048), log=capped)) == ["server.context"]
    assert ids(facts(ANSWERS, models=resident(1024), log=capped)) == []
    assert ids(facts(ANSWERS, models=resident(2048))) == []


@pytest.mark.parametrize(
    ("spec", "argv", "expected"),
    [
        (ServerSpec(parallel=4), ("-np", "1"), ["server.slots-cut"]),
        (ServerSpec(parallel=4), ("-np", "4"), []),
        (ServerSpec(parallel=4), (), []),
        (ServerSpec(kv_cache="q8_0"), ("--cache-type-k", "f16"), ["server.kv-cache"]),
        (ServerSpec(kv_cache="q8_0"), (), ["server.kv-cache"]),
        (ServerSpec(kv_cache="q8_0"), ("--cache-type-k", "q8_0"), []),
        (ServerSpec(flash_attention="on"), ("--flash-attn", "auto"), ["server.flash-attention"]),
        (ServerSpec(flash_attention="off"), ("--flash-attn", "off"), []),
        (ServerSpec(flash_attention="auto"), ("--flash-attn", "off"), []),
    ],
)
def test_what_the_runner_was_given(spec: ServerSpec, argv: tuple[str, ...], expected: list[str]) -> None:
    profile = ProfileFacts(replace(PROFILE, server=spec))
    models = resident(8192, *argv) if argv else resident(8192, "-c", "8192")
    assert ids(facts(ANSWERS, profile=profile, models=models)) == expected
    lacks = tuple(
        Lack(name, "x", "y") for name in ("OLLAMA_NUM_PARALLEL", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION")
    )
    told = facts(replace(ANSWERS, lacks=lacks), profile=profile, models=models)
    assert ids(told) == ["server.settings"], "the cause alone"


def test_a_server_of_another_unit_is_started_again_by_it() -> None:
    theirs = replace(ANSWERS, owner="foreign")
    assert ids(facts(theirs)) == ["server.foreign"]
    assert ids(facts(replace(theirs, processes=(replace(PROCESS, unit="ollama.service"),)))) == []
    assert ids(facts(replace(theirs, processes=()))) == []


def of(**change: Any) -> ServerFacts:
    return replace(ANSWERS, owner=change.pop("owner", "foreign"), processes=(replace(PROCESS, **change),))


LOOK = "ps -o pid,user,lstart,args -p 7"


@pytest.mark.parametrize(
    ("seen", "again", "between"),
    [
        (of(owner="llmctl"), ("llmctl down", "llmctl up"), ("llmctl down", "id", "llmctl up")),
        (
            of(user="ollama", unit="ollama.service"),
            ("sudo systemctl restart ollama.service", "llmctl up"),
            ("sudo systemctl stop ollama.service", "id", "sudo systemctl start ollama.service", "llmctl up"),
        ),
        (
            of(unit="ollama.service", scope="user"),
            ("systemctl --user restart ollama.service", "llmctl up"),
            ("systemctl --user stop ollama.service", "id", "systemctl --user start ollama.service", "llmctl up"),
        ),
        (of(user="bob", unit="ollama.service", scope="user"), (LOOK,), ("id", LOOK)),
        (of(user="bob"), (LOOK,), ("id", LOOK)),
        (of(here=False), (LOOK,), ("id", LOOK)),
        (
            of(environ={"OLLAMA_HOST": "0.0.0.0", "OLLAMA_API_KEY": "swordfish"}),
            ("kill 7", "OLLAMA_HOST=0.0.0.0 ollama serve"),
            ("kill 7", "id", "OLLAMA_HOST=0.0.0.0 ollama serve"),
        ),
        (replace(ANSWERS, owner="foreign", pid=None), ("llmctl status",), ("id", "llmctl status")),
    ],
)
def test_how_a_server_is_started_anew(seen: ServerFacts, again: tuple[str, ...], between: tuple[str, ...]) -> None:
    assert restarted(facts(seen)) == again
    assert restarted(facts(seen), between=("id",)) == between


@pytest.mark.parametrize(
    "check", ["server.hangs", "server.version-differs", "server.stuck-runner", "server.kv-cache", "server.go-bool"]
)
@pytest.mark.parametrize(("scope", "manager"), [("system", "sudo systemctl"), ("user", "systemctl --user")])
def test_a_server_of_a_unit_is_never_left_down(check: str, scope: Literal["system", "user"], manager: str) -> None:
    environ = {"OLLAMA_FLASH_ATTENTION": "off"} if check == "server.go-bool" else {}
    seen = of(unit="ollama.service", scope=scope, replaced=True, environ=environ)
    seen = replace(seen, runners=(replace(RUNNER, health="silent", worked=False),))
    if check == "server.hangs":
        seen = replace(seen, answer="silent")
    profile = ProfileFacts(replace(PROFILE, server=ServerSpec(kv_cache="q8_0")))
    remedy = first(facts(seen, profile=profile, models=resident(8192, "-np", "1")), check).remedy
    assert not any(" stop " in command for command in remedy.commands)
    adopts = check == "server.go-bool" and scope == "system"
    last = "sudo llmctl install-service --adopt" if adopts else f"{manager} restart ollama.service"
    assert last in remedy.commands


def test_an_orphan_is_not_the_runner_of_a_server_that_nobody_sees() -> None:
    assert replace(ANSWERS, pid=None, runners=(replace(RUNNER, parent=None),)).runner_of(WEIGHTS) is None


@pytest.mark.parametrize(
    ("answer", "check", "commands"),
    [
        ("stranger", "server.port-taken", ("curl -i http://box.lan:11434/api/version", "llmctl up")),
        (
            "silent",
            "server.hangs",
            ("getent hosts box.lan", "curl -i --max-time 5 http://box.lan:11434/api/version"),
        ),
    ],
)
def test_of_another_machine_nothing_is_looked_at_or_ended_here(
    answer: Answer, check: str, commands: tuple[str, ...]
) -> None:
    remote = ServerFacts("http://box.lan:11434", "profile", answer, "HTTP 401", owner="foreign")
    found = first(facts(remote), check)
    assert found.remedy.commands == commands
    assert "HTTP 401" in (found.observed, *found.evidence)


def test_a_variable_is_taken_out_of_the_shell_only_where_that_decides() -> None:
    environ = shell(OLLAMA_HOST="0.0.0.0")
    by_hand = anew_with(facts(of(), shell=environ), {"OLLAMA_HOST": "127.0.0.1", "OLLAMA_ORIGINS": ""})
    assert by_hand == ("unset OLLAMA_ORIGINS", "kill 7", "OLLAMA_HOST=127.0.0.1 ollama serve")
    own = anew_with(facts(ANSWERS, shell=environ), {"OLLAMA_HOST": "127.0.0.1"})
    assert own == ("unset OLLAMA_HOST", "llmctl down", "llmctl up")
