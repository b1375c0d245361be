"""Where systemd owns the server, the verbs go through it: for root, for anybody, and for a user's own units."""

from __future__ import annotations

import json
import shlex
import signal

import pytest

from tests.parts.systemd import Container
from tests.service.conftest import STARTER_GGUF, Ask
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET, Service, service

pytestmark = pytest.mark.real("systemd", "ollama", "model")


def brought_up(container: Container) -> Service:
    made = service(container)
    assert made.install().code == 0
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err
    return made


# What a user who is not root may not do to the service of the machine, as typed.
CHANGING = (
    f"pull {STARTER_GGUF} --name mine --yes",
    "pull starter",
    "rm starter --yes",
    "repair --yes",
    "prune --yes",
    "import /starter.tar --name 'a b'",
    "engine install 0.34.0",
    "engine use path",
    "engine upgrade",
    "engine rollback",
    "guard --hold 30m",
    "guard --resume",
)


def test_root_and_anybody_ask_the_service_of_the_machine(container: Container, ask: Ask) -> None:
    made = brought_up(container)
    container.run("useradd", "--create-home", "ann")
    for user in (None, "ann"):
        status = made.llmctl("status", "--json", user=user).json
        assert (status["owner"], status["verdict"]) == ("systemd", "proved")
        service = status["service"]
        assert (service["engine"], service["guard"], service["reason"]) == ("active", "active", "resident")
        assert service["unit"]["user"] == "llmctl"
        assert "video" in service["unit"]["groups"]
        assert service["shell"]["user"] == (user or "root")
        assert made.llmctl("status", "--quiet", user=user).code == 0
    assert "starter" in made.llmctl("list", user="ann").out
    answer = made.llmctl("ask", "The capital of France is", "--max-tokens", "4", user="ann")
    assert answer.code == 0, answer.err
    assert "Listening on" in made.llmctl("logs", "-n", "1000").out
    # What needs root says so, with the command.
    for verb in ("up", "down"):
        refused = made.llmctl(verb, "--json", user="ann")
        assert (refused.code, refused.error["code"], refused.error["hint"]) == (5, "not_root", f"sudo llmctl {verb}")
    assert made.llmctl("logs", "--json", user="ann").error["hint"] == "sudo llmctl logs"
    models = [entry["name"] for entry in ask(made.port, "/api/tags")["models"]]
    for typed in CHANGING:
        refused = made.llmctl(*shlex.split(typed), user="ann")
        assert (refused.code, refused.err.splitlines()[-1]) == (5, f"hint: sudo llmctl {typed}")
        refused = made.llmctl(*shlex.split(typed), "--json", user="ann")
        assert (refused.code, refused.error["code"], refused.error["hint"]) == (5, "not_root", f"sudo llmctl {typed}")
    both = "hint: sudo llmctl init cpu; as your own: LLMCTL_SCOPE=user llmctl init cpu"
    assert made.llmctl("init", "cpu", user="ann").err.splitlines()[-1] == both
    assert [entry["name"] for entry in ask(made.port, "/api/tags")["models"]] == models
    for typed in ("verify", "export starter -o /home/ann/starter.tar", "repair --dry-run", "prune --dry-run"):
        assert made.llmctl(*shlex.split(typed), user="ann").code == 0
    # What would be done, anybody may know.
    asked = made.llmctl("engine", "upgrade", "9.9.9", "--dry-run", "--json", user="ann")
    assert (asked.code, asked.json["outcome"], asked.json["to"]) == (0, "planned", "9.9.9"), asked.err
    assert made.llmctl("engine", "rollback", "--dry-run", user="ann").code == 4
    other = made.llmctl("up", "cpu", "--json").error
    assert "sudo llmctl install-service --profile cpu" in other["hint"]

    for typed in (f"pull {STARTER_GGUF} --name mine --yes", "rm mine --yes"):
        done = made.llmctl(*shlex.split(typed))
        assert done.code == 0, done.err
    # Root worked in places of the service's user: nothing there became root's, or the guard could not write it.
    places = ("/var/lib/llmctl/state", "/var/lib/llmctl/models", "/run/llmctl")
    assert container.run("find", *places, "!", "-user", "llmctl").stdout == ""

    down = made.llmctl("down", "--json").json
    assert (down["changed"], down["service"]) == (True, True)
    assert not container.pids(ENGINE_UNIT)
    assert container.run("test", "-e", "/run/llmctl/hold.json", check=False).returncode == 0
    assert made.llmctl("status", "--json").code == 3
    assert not made.llmctl("down", "--json").json["changed"]
    assert made.llmctl("down").out.endswith("or with: sudo llmctl up\n")
    assert made.llmctl("up", "--json").json["changed"]
    assert container.run("test", "-e", "/run/llmctl/hold.json", check=False).returncode == 1


def test_a_link_in_the_services_folders_leads_root_nowhere(container: Container) -> None:
    """Who has broken into the server has its user, and must not get root with it."""
    made = brought_up(container)
    container.write("/etc/victim", "as it was\n")
    container.run("mkdir", "/etc/place")
    for link, target in (("state.json", "/etc/victim"), ("up.lock", "/etc/new"), ("locks", "/etc/place")):
        container.run("rm", "-rf", f"/var/lib/llmctl/state/{link}")
        container.run("ln", "-s", target, f"/var/lib/llmctl/state/{link}", user="llmctl")
    container.run("rm", "-f", "/run/llmctl/hold.json")
    container.run("ln", "-s", "/etc/victim", "/run/llmctl/hold.json", user="llmctl")
    made.llmctl("up")
    made.llmctl("down")
    assert container.read("/etc/victim") == "as it was\n"
    assert container.run("find", "/etc/place", "/etc/new", "-mindepth", "1", check=False).stdout == ""
    assert container.run("test", "-e", "/etc/new", check=False).returncode == 1


@pytest.mark.parametrize("user", ["ann", None])
def test_units_of_ones_own_are_never_the_machines(container: Container, user: str | None) -> None:
    """Who has nothing of their own means the machine's service by every other verb."""
    made = service(container)
    assert made.install().code == 0
    container.add_user("ann")
    before = container.run("find", "/etc/llmctl", "/opt/llmctl", "/etc/systemd", "-printf", "%p %u %m\n").stdout
    # Root has no manager of its own here, whom the units would be for.
    typed_ones = ["uninstall-service --user --purge", *(["install-service --user --profile cpu"] if user else [])]
    for typed in typed_ones:
        done = made.llmctl(*typed.split(), "--dry-run", "--json", user=user)
        assert done.code == 0, done.err
        assert "/home/ann" in done.out if user else "/root" in done.out
        assert not [folder for folder in ("/var/lib/llmctl", "/etc/llmctl", "/run/llmctl") if folder in done.out]
    for _ in range(2):
        done = made.llmctl("uninstall-service", "--user", "--purge", "--yes", "--json", user=user)
        assert (done.code, done.json["changed"]) == (0, False)
    found = container.run("find", "/etc/llmctl", "/opt/llmctl", "/etc/systemd", "-printf", "%p %u %m\n").stdout
    assert found == before


def test_an_edited_profile_is_drift(container: Container) -> None:
    made = brought_up(container)
    container.run("sed", "-i", "s/context: 2048/context: 4096/", "/etc/llmctl/profile.yaml")
    (drift,) = made.llmctl("status", "--json").json["service"]["drift"]
    assert drift == {"setting": "OLLAMA_CONTEXT_LENGTH", "wanted": "4096", "found": "2048"}
    assert "sudo llmctl install-service" in made.llmctl("status").out
    up = made.llmctl("up", "--json")
    said = up.json["error"]
    assert (up.code, said["code"], said["hint"]) == (5, "drift", "sudo llmctl install-service")
    assert made.llmctl("install-service", "--json").json["changed"]
    assert made.llmctl("up", "--json").json["models"][0]["context"] == 4096
    assert made.llmctl("status", "--json").json["service"]["drift"] == []


def test_units_of_a_users_own(container: Container) -> None:
    made = service(container)
    container.add_user("ann")
    profile = made.profile("/home/ann/my.yaml")
    up = made.llmctl("up", profile, "--yes", user="ann")
    assert up.code == 0, f"{up.err}{made.llmctl('logs', '-n', '200', user='ann').out}"
    dry = made.llmctl("install-service", "--user", "--profile", profile, "--dry-run", user="ann")
    assert ENGINE_UNIT in dry.out
    assert container.unit(TARGET, user="ann")["LoadState"] == "not-found"
    done = made.llmctl("install-service", "--user", "--profile", profile, "--json", user="ann")
    assert done.code == 0, done.err
    assert not made.llmctl("install-service", "--user", "--profile", profile, "--json", user="ann").json["changed"]
    up = made.llmctl("up", "--json", user="ann")
    assert up.code == 0, up.err
    assert up.json["owner"] == "systemd"
    assert container.unit(GUARD_UNIT, user="ann")["ActiveState"] == "active"
    (pid,) = container.pids(ENGINE_UNIT, "ollama", user="ann")
    container.signal(pid, signal.SIGKILL)
    container.wait(
        lambda: container.pids(ENGINE_UNIT, "ollama", user="ann") not in ([], [pid]), 60, "another server of ann's"
    )
    container.wait(lambda: made.llmctl("status", "--quiet", user="ann").code == 0, 120, "the model of ann's")
    assert json.loads(made.llmctl("status", "--json", user="ann").out)["service"]["scope"] == "user"
    assert "Listening on" in made.llmctl("logs", "-n", "1000", user="ann").out
    assert made.llmctl("down", user="ann").out.endswith("or with: llmctl up\n")
    assert not container.pids(ENGINE_UNIT, user="ann")
    assert made.llmctl("uninstall-service", "--user", "--json", user="ann").json["changed"]
    assert not made.llmctl("uninstall-service", "--user", "--json", user="ann").json["changed"]
    assert container.run("find", "/home/ann/.config/systemd", "-name", "*llmctl*").stdout == ""
    assert container.unit(TARGET, user="ann")["LoadState"] == "not-found"
    assert made.llmctl("list", user="ann").out.startswith("name")
