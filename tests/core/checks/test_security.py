"""What is said of a server's openness, and of an engine's version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.security import SecurityFacts
from llmctl.core.checks.facts.server import ServerFacts, ServerProcess
from llmctl.core.checks.facts.service import ServiceFacts, UnitFacts
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.checks.security import CHECKS
from llmctl.core.profile import ModelSpec, Profile, ServerSpec
from llmctl.core.proxy import has_password
from llmctl.core.server_state import Owner
from llmctl.core.serving import Lack
from llmctl.core.unit import Scope
from llmctl.system import cves


def facts(
    environ: Mapping[str, str] | None = None,
    *,
    addresses: tuple[str, ...] | None = ("127.0.0.1",),
    cloud_disabled: bool | None = True,
    version: str = "0.34.0",
    unit: UnitFacts | None = None,
    table_age_days: int = 0,
) -> Facts:
    process = ServerProcess(7, "ollama", "ollama", "S", 11434, None, environ or {}, 5.0)
    server = ServerFacts(
        "http://127.0.0.1:11434", "default", "answers", version=version, owner="foreign", pid=7, processes=(process,)
    )
    return Facts(
        {
            "server": server,
            "security": SecurityFacts(addresses, cloud_disabled, (), cves.table(), table_age_days),
            "service": ServiceFacts(True, ollama=unit),
            "shell": ShellFacts("ann", 1000, {}, None, False),
            "profile": ProfileFacts(None, "none"),
            "engine": EngineFacts(None, None, None, None, None, ()),
        }
    )


def outcome(check: str, given: Facts) -> Outcome:
    (found,) = examine([each for each in CHECKS if each.id == check], given)
    return found


@pytest.mark.parametrize(
    ("addresses", "state"),
    [
        (("127.0.0.1",), "ok"),
        (("127.0.0.53", "::1"), "ok"),
        (("::ffff:127.0.0.1",), "ok"),
        (("::ffff:192.168.1.7",), "found"),
        (("::ffff:0.0.0.0",), "found"),
        (("0.0.0.0",), "found"),
        (("::",), "found"),
        (("127.0.0.1", "192.168.1.7"), "found"),
        (None, "unknown"),
    ],
)
def test_where_it_listens(addresses: tuple[str, ...] | None, state: str) -> None:
    assert outcome("security.bound-wide", facts(addresses=addresses)).state == state


@pytest.mark.parametrize(
    ("container", "parent", "forwarded", "severity", "command"),
    [
        (None, 1, False, "error", "kill 7"),
        ("docker", 1, False, "warning", "docker ps --filter publish=11434"),
        ("docker", 50, False, "error", "kill 7"),
        (None, 1, True, "error", "ss -ltnp sport = :11434"),
    ],
)
def test_a_port_that_is_published(
    container: str | None, parent: int, forwarded: bool, severity: str, command: str
) -> None:
    given = facts({"PATH": "/"}, addresses=("0.0.0.0",))
    server = given.server
    mine = replace(server.processes[0], user="ann", parent=parent)
    server = replace(server, forwarded=forwarded, processes=() if forwarded else (mine,))
    shell = ShellFacts("ann", 1000, {}, container, False)
    found = outcome("security.bound-wide", Facts({**given.areas, "server": server, "shell": shell}))
    (finding,) = found.findings
    assert (found.severity(finding), finding.remedy.commands[0]) == (severity, command)
    by_hand = any(word.startswith("OLLAMA_HOST=127.0.0.1:11434") for word in finding.remedy.commands)
    assert by_hand == (command == "kill 7")


@pytest.mark.parametrize(
    ("owner", "scope", "overridden", "commands"),
    [
        ("systemd", "system", (), ("sudo llmctl install-service --profile mine",)),
        ("systemd", "user", (), ("llmctl install-service --user --profile mine",)),
        (
            "systemd",
            "system",
            (Lack("OLLAMA_HOST", "127.0.0.1:11434", "0.0.0.0"),),
            ("sudo systemctl edit llmctl-engine.service", "sudo systemctl restart llmctl-engine.service"),
        ),
        ("systemd", "system", (Lack("OLLAMA_DEBUG", "", "1"),), ("sudo llmctl install-service --profile mine",)),
        ("llmctl", None, (), ("llmctl down", "llmctl up")),
        (
            "foreign",
            "system",
            (),
            ("sudo systemctl edit ollama.service", "sudo systemctl restart ollama.service"),
        ),
    ],
)
def test_how_a_server_is_closed_to_others(
    owner: Owner, scope: Scope | None, overridden: tuple[Lack, ...], commands: tuple[str, ...]
) -> None:
    """What the profile decides is written there, and its unit is made of it; a drop-in is edited where it is."""
    given = facts(addresses=("0.0.0.0",))
    name = {"systemd": "llmctl-engine.service", "foreign": "ollama.service"}.get(owner)
    process = replace(given.server.processes[0], user="ann", unit=name, scope=scope or "system")
    server = replace(given.server, owner=owner, processes=(process,), which=" --profile mine")
    spec = ServerSpec(host="0.0.0.0", address_given=True)
    profile = Profile("mine", (ModelSpec("m"),), server=spec, path="/p.yaml")
    service = ServiceFacts(True, scope, overridden=overridden)
    areas = {**given.areas, "server": server, "service": service, "profile": ProfileFacts(profile)}
    (finding,) = outcome("security.bound-wide", Facts(areas)).findings
    assert finding.remedy.commands == commands
    assert finding.remedy.text.startswith("set server.host to 127.0.0.1 in /p.yaml") == (owner != "foreign")


@pytest.mark.parametrize(
    ("value", "state"),
    [
        ("*", "found"),
        ("http://*", "found"),
        ("https://a.example, *", "found"),
        ("https://*:*", "found"),
        ("https://a.example,app://*.example", "ok"),
        ("http://*.example.org", "ok"),
        ("chrome-extension://*,app://*,moz-extension://*:*", "ok"),
        ("app://*,https://*", "found"),
        ('"*"', "found"),
        ("'https://a.example,*'", "found"),
        ('"https://a.example"', "ok"),
        ("", "ok"),
    ],
)
def test_origins(value: str, state: str) -> None:
    assert outcome("security.origins", facts({"OLLAMA_ORIGINS": value, "PATH": "/"})).state == state


@pytest.mark.parametrize(
    ("said", "environ", "state"),
    [
        (True, {}, "ok"),
        (False, {"OLLAMA_NO_CLOUD": "1"}, "found"),
        (None, {"OLLAMA_NO_CLOUD": "1"}, "ok"),
        (None, {"PATH": "/"}, "found"),
        (None, {}, "unknown"),
    ],
)
def test_the_cloud(said: bool | None, environ: dict[str, str], state: str) -> None:
    assert outcome("security.cloud", facts(environ, cloud_disabled=said)).state == state


def test_an_environment_that_may_not_be_read_is_unknown() -> None:
    for check in ("security.origins", "security.bodies-logged"):
        assert outcome(check, facts()).state == "unknown"


@pytest.mark.parametrize(
    ("value", "state"),
    [("1", "found"), ("on", "found"), ('"1"', "found"), ("0", "ok"), ('"0"', "ok"), ("' false'", "found"), ("", "ok")],
)
def test_whether_prompts_are_logged(value: str, state: str) -> None:
    given = facts({"OLLAMA_DEBUG_LOG_REQUESTS": value, "PATH": "/"})
    assert outcome("security.bodies-logged", given).state == state


def test_an_old_table_is_no_proof_of_a_sound_engine() -> None:
    assert outcome("security.cve", facts(table_age_days=180)).state == "ok"
    old = outcome("security.cve", facts(table_age_days=181))
    assert (old.state, "181 days ago" in old.why) == ("unknown", True)


def test_a_finding_tells_how_old_the_table_is() -> None:
    (fresh,) = outcome("security.cve", facts(version="0.17.0", table_age_days=20)).findings
    assert fresh.evidence[-1] == f"the table of known faults is of {cves.table().read}"
    (old,) = outcome("security.cve", facts(version="0.17.0", table_age_days=200)).findings
    assert "200 days ago" in old.evidence[-1]


@pytest.mark.parametrize("version", ["0.0.0", "built here"])
def test_a_build_that_tells_no_version_is_unknown(version: str) -> None:
    found = outcome("security.cve", facts(version=version, addresses=("0.0.0.0",)))
    assert (found.state, found.why) == ("unknown", f"{version} is no version to compare")


def test_a_table_that_cannot_be_read_is_unknown() -> None:
    given = facts(version="0.17.0")
    lost = Facts({**given.areas, "security": replace(given.security, faults=None)})
    assert outcome("security.cve", lost).state == "unknown"


@pytest.mark.parametrize(
    ("version", "addresses", "severity"),
    [
        ("0.17.0", ("127.0.0.1",), "warning"),
        ("0.17.0", ("0.0.0.0",), "error"),
        ("0.1.46", ("127.0.0.1",), "error"),
        ("0.32.9", ("0.0.0.0",), "warning"),
    ],
)
def test_how_bad_a_known_fault_is(version: str, addresses: tuple[str, ...], severity: str) -> None:
    found = outcome("security.cve", facts(version=version, addresses=addresses))
    assert [found.severity(finding) for finding in found.findings] == [severity]


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [
        ("HTTPS_PROXY", "http://me:secret@proxy:3128", True),
        ("https_proxy", "me:secret@proxy:3128", True),
        ("ALL_PROXY", "socks5://me:se/c@ret@proxy:1080", True),
        ("HTTPS_PROXY", "http://proxy:3128", False),
        ("HTTPS_PROXY", "http://me@proxy:3128", False),
        ("NO_PROXY", "localhost,127.0.0.1", False),
        ("OLLAMA_HOST", "http://me:secret@proxy:3128", False),
    ],
)
def test_passwords_of_proxies(name: str, value: str, has: bool) -> None:
    assert has_password(name, value) is has


@pytest.mark.parametrize("scope", ["system", "user", None])
@pytest.mark.parametrize("name", ["llmctl-engine.service", "ollama.service"])
def test_how_a_password_leaves_a_unit(scope: Scope | None, name: str) -> None:
    """Ollama's own unit is the machine's, also beside a service of one user."""
    has = UnitFacts(name, f"/etc/systemd/system/{name}", passwords=("HTTPS_PROXY",))
    manager = "systemctl --user" if scope == "user" else "sudo systemctl"
    mine = name != "ollama.service"
    service = ServiceFacts(
        True,
        scope,
        units={name: has} if mine else {},
        ollama=None if mine else has,
        systemctl=manager,
        reinstall="llmctl install-service --user" if scope == "user" else "sudo llmctl install-service",
    )
    given = facts({"PATH": "/"})
    (finding,) = outcome("security.proxy-password", Facts({**given.areas, "service": service})).findings
    if mine:
        assert finding.remedy.commands == (f"{manager} edit {name}", service.reinstall)
    else:
        assert finding.remedy.commands == (f"sudo systemctl edit {name}", f"sudo systemctl restart {name}")
        assert "install-service" not in finding.remedy.text


@pytest.mark.parametrize(
    ("unit", "commands"),
    [
        ("ollama.service", ["sudo systemctl edit ollama.service", "sudo systemctl restart ollama.service"]),
        (None, ["sudo llmctl install-service", "unset HTTPS_PROXY", "kill 7", "ollama serve"]),
    ],
)
def test_how_a_password_leaves_a_server(unit: str | None, commands: list[str]) -> None:
    """Beside Ollama's own unit install-service makes no service, and so holds no password."""
    given = facts({"HTTPS_PROXY": "http://me:secret@proxy:3128"})
    process = replace(given.server.processes[0], user="ann", unit=unit)
    areas = {**given.areas, "server": replace(given.server, processes=(process,))}
    (finding,) = outcome("security.proxy-password", Facts(areas)).findings
    assert list(finding.remedy.commands) == commands


def test_a_password_is_never_shown() -> None:
    given = facts({"HTTPS_PROXY": "http://me:secret@proxy:3128"})
    assert "secret" not in repr(outcome("security.proxy-password", given).findings)
