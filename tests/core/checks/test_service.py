"""What is said of a service, at the edges of each rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from llmctl.core import unit
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.gpu import Card, GpuFacts
from llmctl.core.checks.facts.server import Answer, ServerFacts
from llmctl.core.checks.facts.service import GuardFacts, ServiceFacts, UnitFacts
from llmctl.core.checks.service import CHECKS, LAST, UNITS
from llmctl.core.serving import Lack
from llmctl.core.surroundings import Difference

EVERY = (*UNITS, *CHECKS, *LAST)
ENGINE, GUARD, TARGET, OLLAMA = (
    UnitFacts(name, f"/etc/systemd/system/{name}", "llmctl", "loaded", "active", "running", "success", enabled, pid=9)
    for name, enabled in (
        (unit.ENGINE, "static"),
        (unit.GUARD, "static"),
        (unit.TARGET, "enabled"),
        (unit.FOREIGN, "enabled"),
    )
)
SOUND = ServiceFacts(True, "system", units={each.name: each for each in (ENGINE, GUARD, TARGET)})
CARDS = GpuFacts("fine", cards=(Card(0, "NVIDIA GeForce RTX 3090", 24 << 30, 20 << 30),))


def outcome(check: str, service: ServiceFacts, *, answer: Answer = "answers", gpu: GpuFacts = CARDS) -> Outcome:
    server = ServerFacts("http://127.0.0.1:11434", "default", answer)
    areas = {"service": service, "server": server, "gpu": gpu}
    (found,) = examine([each for each in EVERY if each.id == check], Facts(areas))
    return found


def with_unit(changed: UnitFacts) -> ServiceFacts:
    return replace(SOUND, units={**SOUND.units, changed.name: changed})


@pytest.mark.parametrize("check", [each.id for each in EVERY])
def test_nothing_is_said_of_a_sound_service_or_of_none(check: str) -> None:
    none = ServiceFacts(False)
    foreign = ServiceFacts(True, ollama=replace(OLLAMA, discovery="gpu", since_boot_seconds=5.0))
    assert [outcome(check, each).state for each in (SOUND, none, foreign)] == ["ok", "ok", "ok"]


def test_a_unit_that_failed_because_of_a_taken_port_is_no_cause() -> None:
    failed = with_unit(replace(ENGINE, active="failed", result="exit-code", words=("error: port 11434 is taken",)))
    assert outcome("service.failed", failed, answer="stranger").state == "ok"
    (found,) = outcome("service.failed", failed, answer="absent").findings
    assert found.evidence == ("error: port 11434 is taken",)
    assert found.remedy.commands == ("sudo journalctl --unit llmctl-engine.service --lines 50", "llmctl up")


@pytest.mark.parametrize(
    ("answer", "adopted", "severity"),
    [("answers", False, "info"), ("absent", False, "error"), ("silent", False, "error"), ("answers", True, "error")],
)
def test_a_failed_unit_that_nobody_needs_is_for_information(answer: Answer, adopted: bool, severity: str) -> None:
    stale = replace(OLLAMA, active="failed", result="exit-code")
    service = replace(SOUND, adopted=True, units={GUARD.name: GUARD}) if adopted else ServiceFacts(True)
    found = outcome("service.failed", replace(service, ollama=stale), answer=answer)
    assert [found.severity(finding) for finding in found.findings] == [severity]


@pytest.mark.parametrize(
    ("seconds", "discovery", "gpu", "state"),
    [
        (5.0, "cpu", CARDS, "found"),
        (5.0, "failed", CARDS, "found"),
        (5.0, "gpu", CARDS, "ok"),
        (5.0, None, CARDS, "ok"),
        (500.0, "cpu", CARDS, "ok"),
        (5.0, "cpu", GpuFacts("absent"), "ok"),
    ],
)
def test_started_before_the_driver(seconds: float, discovery: str | None, gpu: GpuFacts, state: str) -> None:
    ollama = replace(OLLAMA, since_boot_seconds=seconds, discovery=discovery)  # type: ignore[arg-type]
    assert outcome("service.boot-order", ServiceFacts(True, ollama=ollama), gpu=gpu).state == state


def test_a_journal_that_may_not_be_read_is_unknown() -> None:
    assert outcome("service.watchdog", with_unit(replace(GUARD, watchdog=None))).state == "unknown"


@pytest.mark.parametrize(("scope", "systemctl"), [("system", "sudo systemctl"), ("user", "systemctl --user")])
def test_a_change_that_systemd_has_not_read(scope: Literal["system", "user"], systemctl: str) -> None:
    stale = replace(with_unit(replace(ENGINE, stale=True)), scope=scope, systemctl=systemctl)
    (found,) = outcome("service.edited", stale).findings
    assert found.remedy.commands == (
        f"{systemctl} daemon-reload",
        f"{systemctl} restart llmctl-engine.service",
    )


@pytest.mark.parametrize(("restarts", "state"), [(2, "ok"), (3, "found")])
def test_restarts(restarts: int, state: str) -> None:
    assert outcome("service.restarts", with_unit(replace(ENGINE, restarts=restarts))).state == state


def test_a_unit_of_ones_own_is_mended_without_root() -> None:
    mine = replace(
        with_unit(replace(TARGET, enabled="disabled")),
        scope="user",
        systemctl="systemctl --user",
        reinstall="llmctl install-service --user",
        linger=True,
    )
    (found,) = outcome("service.disabled", mine).findings
    assert found.remedy.commands == ("systemctl --user enable --now llmctl.target",)
    assert outcome("service.linger", mine).state == "ok"


@pytest.mark.parametrize(
    ("name", "words"),
    [("OLLAMA_HOST", "another server"), ("OLLAMA_MODELS", "store"), ("OLLAMA_DEBUG", "changes nothing")],
)
def test_what_is_set_in_a_shell_is_not_heard_by_the_server(name: str, words: str) -> None:
    differing = replace(SOUND, shell=(Difference(name, None, "x", True),))
    (found,) = outcome("service.environment-differs", differing).findings
    assert words in found.observed
    assert found.remedy.commands == (f"unset {name}",)


@pytest.mark.parametrize(
    ("scope", "reinstall", "more", "word"),
    [
        ("system", "sudo llmctl install-service", " --import-models copy", "adopt"),
        ("system", "llmctl install-service", " --import-models copy", "adopt"),
        ("user", "llmctl install-service --user --profile mine", "", "pulled anew"),
    ],
)
def test_one_of_two_units_gives_way(scope: Literal["system", "user"], reinstall: str, more: str, word: str) -> None:
    two = replace(SOUND, scope=scope, ollama=OLLAMA, same_port=True, reinstall=reinstall)
    (found,) = outcome("service.foreign-beside", two).findings
    assert found.remedy.commands == ("sudo systemctl disable --now ollama.service", reinstall + more)
    assert word in found.remedy.text


def test_an_adopted_service_needs_ollamas_unit_and_what_it_lacks() -> None:
    adopted = replace(SOUND, adopted=True, units={each.name: each for each in (GUARD, TARGET)}, ollama=OLLAMA)
    assert outcome("service.overwritten", adopted).state == "ok"
    gone = replace(adopted, ollama=None)
    assert "no ollama.service any more" in outcome("service.overwritten", gone).findings[0].observed
    lacks = replace(adopted, adoption=(Lack("OLLAMA_KEEP_ALIVE", "-1", None),))
    assert "OLLAMA_KEEP_ALIVE=-1 (found: not set)" in outcome("service.overwritten", lacks).findings[0].observed
    disabled = replace(adopted, ollama=replace(OLLAMA, enabled="disabled"))
    assert outcome("service.disabled", disabled).findings[0].subject == unit.FOREIGN


def test_what_the_guard_says_comes_with_its_own_remedy() -> None:
    guard = GuardFacts("load_failed", "starter does not load", degraded=True, remedies=("llmctl repair starter",))
    (found,) = outcome("service.guard-degraded", replace(SOUND, guard=guard)).findings
    assert "llmctl repair starter" in found.remedy.text
    assert outcome("service.guard-degraded", replace(SOUND, guard=replace(guard, degraded=False))).state == "ok"
