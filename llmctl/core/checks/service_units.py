"""Checks of the service's units: whether systemd has them, may start them, and they are llmctl's."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from llmctl.core import unit
from llmctl.core.checks.causes import UNIT_GONE
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.service import ServiceFacts, UnitFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy
from llmctl.core.checks.words import names


def installed(judge: Callable[[ServiceFacts], Judgement]) -> Callable[[Facts], Judgement]:
    """Only where systemd is there and has a service of llmctl's, or what is left of one."""
    return lambda facts: judge(facts.service) if facts.service.systemd and facts.service.scope else None


def missing_unit(service: ServiceFacts) -> Judgement:
    gone = [known for known in service.units.values() if known.whose == "absent"]
    if not gone:
        return None
    return Finding(
        f"not there: {names([known.name for known in gone])}",
        f"the units that install-service writes: {names(list(service.units))}",
        Remedy("write them anew; profile, pins and models stay as they are", (service.reinstall,)),
        (f"left of the service: {service.leftover}",) if service.leftover else (),
        gone[0].file,
    )


def masked(service: ServiceFacts) -> Judgement:
    found = [known for known in every(service) if known.load == "masked" or known.whose == "masked"]
    return [
        Finding(
            f"{known.name} is masked: {known.file or 'its file'} leads to /dev/null, and systemd will not start it",
            "a unit that can be started",
            Remedy(
                "take the mask away, then write the unit anew, as a mask stands in the place of its file",
                (f"{service.systemctl} unmask {known.name}", service.reinstall),
            )
            if known.name != unit.FOREIGN
            else Remedy(
                "take the mask away and start it",
                (f"{service.systemctl} unmask {known.name}", f"{service.systemctl} start {known.name}"),
            ),
            subject=known.name,
        )
        for known in found
    ]


def every(service: ServiceFacts) -> Iterator[UnitFacts]:
    """The units that must run: llmctl's, and Ollama's own where it was adopted."""
    yield from service.units.values()
    if service.adopted and service.ollama is not None:
        yield service.ollama


def overwritten(service: ServiceFacts) -> Judgement:
    if service.adopted:
        return adoption_lost(service)
    return [
        Finding(
            f"{known.file} is not the unit that llmctl writes: it does not begin with its mark",
            f"the {known.name} of install-service",
            Remedy(
                "look at what it is; move it away if it is not wanted, then write llmctl's own",
                (f"systemctl cat {known.name}", f"sudo rm {shlex.quote(known.file)}", service.reinstall),
            ),
            subject=known.name,
        )
        for known in service.units.values()
        if known.whose == "other"
    ]


def adoption_lost(service: ServiceFacts) -> Judgement:
    """Ollama's installer writes its unit anew; the drop-in survives that, unless somebody removes it."""
    ollama = service.ollama
    if ollama is None or ollama.whose == "masked":
        return Finding(
            f"there is no {unit.FOREIGN} any more, and the guard waits for its server",
            f"the {unit.FOREIGN} that was adopted",
            Remedy(
                "have an engine of llmctl's own in its place, or install Ollama again",
                (f"{service.llmctl} install-service", f"{service.llmctl} uninstall-service"),
            ),
            subject=unit.FOREIGN,
        )
    if not service.adoption:
        return None
    lacks = [f"{lack.setting}={lack.wanted} (found: {lack.found or 'not set'})" for lack in service.adoption]
    return Finding(
        f"{unit.FOREIGN} lacks {names(lacks)}",
        f"the drop-in of install-service --adopt: {unit.FOREIGN}.d/{unit.DROP_IN}",
        Remedy("add it again; the unit is restarted, which unloads its models for a while", (service.reinstall,)),
        (ollama.file,),
        unit.FOREIGN,
    )


def foreign_beside(service: ServiceFacts) -> Judgement:
    ollama, engine = service.ollama, service.units.get(unit.ENGINE)
    if not service.same_port or ollama is None or engine is None:
        return None
    words, models = "give llmctl its place, with its models; or keep Ollama's own and adopt it", " --import-models copy"
    if service.scope == "user":
        # Both are for the service of the machine.
        words, models = "give llmctl its place; what only Ollama's own store has is pulled anew", ""
    return Finding(
        f"{unit.FOREIGN} ({ollama.enabled}, {ollama.active}) and {unit.ENGINE} want the same port, and whichever "
        "starts first at a boot has it",
        "one of them",
        Remedy(words, (f"sudo systemctl disable --now {unit.FOREIGN}", f"{service.reinstall}{models}")),
        (f"{unit.FOREIGN}: {ollama.file}", f"{unit.ENGINE}: {engine.file}"),
        unit.FOREIGN,
    )


def disabled(service: ServiceFacts) -> Judgement:
    target = service.units.get(unit.TARGET)
    found = [target] if target is not None and target.whose == "llmctl" else []
    if service.adopted and service.ollama is not None:
        found.append(service.ollama)
    return [
        Finding(
            f"{known.name} is {known.enabled}: nothing of it starts at the next boot"
            + ("" if known.active == "active" else f", and it is {known.active} now"),
            "enabled",
            Remedy("enable it, and start what is not running", (f"{service.systemctl} enable --now {known.name}",)),
            (known.file,),
            known.name,
        )
        for known in found
        if known.enabled == "disabled"
    ]


def failed(facts: Facts) -> Judgement:
    service = facts.service
    if taken(facts):
        return None
    mine = list(every(service)) if service.scope else [service.ollama] if service.ollama else []
    return [
        Finding(
            f"{known.name} has failed ({known.result}) after {known.restarts} restarts, and systemd has given up",
            "active",
            Remedy(
                "see its last words, mend what they name, then begin anew",
                (journal(service, known.name), *anew(service, known)),
            ),
            known.words,
            known.name,
            "info" if is_left_over(facts, known) else None,
        )
        for known in mine
        if known.active == "failed"
    ]


def is_left_over(facts: Facts, known: UnitFacts) -> bool:
    """Whether it is Ollama's own unit, that nobody adopted, while the profile has a server."""
    try:
        return facts.server.answers and known.name == unit.FOREIGN and not facts.service.adopted
    except NotGathered:
        return False


def journal(service: ServiceFacts, name: str) -> str:
    sudo = "sudo " if service.systemctl.startswith("sudo") else ""
    return f"{sudo}journalctl {'--unit' if sudo else '--user-unit'} {name} --lines 50"


def anew(service: ServiceFacts, known: UnitFacts) -> tuple[str, ...]:
    if service.scope and known.name != unit.FOREIGN:
        return (f"{service.llmctl} up",)
    return (f"sudo systemctl reset-failed {known.name}", f"sudo systemctl start {known.name}")


def taken(facts: Facts) -> bool:
    """Whether another program has the port, which ends every server that wants it: `server.port-taken` says so."""
    try:
        return facts.server.answer == "stranger"
    except NotGathered:
        return False


# These stop a server from being there at all, so they stand before those of the server.
CHECKS = (
    Check(
        "service.missing-unit",
        "A unit of the service is gone",
        "error",
        "The service is three units: the engine, the guard, and the target that starts both (two where Ollama's own "
        "unit was adopted). One that is gone while something else of the service is left was deleted by hand or by a "
        "tool that tidies /etc.",
        installed(missing_unit),
    ),
    Check(
        "service.masked",
        "A unit is masked",
        "error",
        "A mask is a link to /dev/null in place of the unit's file (systemctl(1)): nothing starts it, not even the "
        "target that wants it.",
        installed(masked),
    ),
    Check(
        "service.overwritten",
        "A unit was written over",
        "error",
        "A unit of llmctl's that another program wrote, or, where Ollama's own unit was adopted, a lost drop-in. "
        "Ollama's installer writes /etc/systemd/system/ollama.service anew at each run (ollama v0.33.0 "
        "scripts/install.sh; ollama/ollama issues 1278, 2268, 6594, 9623, 13178): what was edited in there is lost, "
        "and drop-ins survive.",
        installed(overwritten),
        after=UNIT_GONE,
    ),
    Check(
        "service.foreign-beside",
        "Two services want the same port",
        "error",
        "ollama.service, which Ollama's installer makes, enabled beside llmctl-engine.service: the one that comes "
        "second at a boot fails to bind, and the models of the first are what clients see (ollama/ollama issues 707, "
        "2194, 14963).",
        installed(foreign_beside),
    ),
    Check(
        "service.disabled",
        "The service does not start at boot",
        "error",
        "llmctl.target is what the boot starts, and what starts engine and guard. `llmctl down` does not disable it: "
        "it only stops the service until the next boot.",
        installed(disabled),
        after=UNIT_GONE,
    ),
    Check(
        "service.failed",
        "A unit has failed",
        "error",
        "systemd gives up on a unit that ends again and again: the fifteenth start of the engine within 20 minutes is "
        "the last. Its last words in the journal say why. Not told where another program has the "
        "port: that is the cause then. For information where it is Ollama's own unit, and the profile's server is "
        "another one and answers.",
        failed,
        after=("engine.none", "store.permissions", *UNIT_GONE),
    ),
)
