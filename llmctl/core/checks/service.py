"""Checks of the service: how its units run, and with what."""

from __future__ import annotations

from llmctl.core import unit
from llmctl.core.checks import service_units
from llmctl.core.checks.causes import NO_CARD, NO_LOCK, NO_SERVER, NO_STORE, PINS_BROKEN, UNITS_BROKEN
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.service import ServiceFacts, UnitFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.service_units import every, installed, journal
from llmctl.core.checks.words import names
from llmctl.core.surroundings import Difference

MANY_RESTARTS = 3
# What starts so soon after the boot may have been before the driver.
EARLY_SECONDS = 180.0
MOST_LINES = 4
UNITS = service_units.CHECKS


def edited(service: ServiceFacts) -> Judgement:
    return [*differing(service), *not_in_force(service)]


def not_in_force(service: ServiceFacts) -> list[Finding]:
    return [
        Finding(
            f"the file of {known.name} or a drop-in was changed, and systemd goes on with what it read before",
            "a unit that is in force as it is written",
            Remedy(
                "have systemd read it, and start it anew",
                (f"{service.systemctl} daemon-reload", f"{service.systemctl} restart {known.name}"),
            ),
            (known.file, *known.drop_ins),
            known.name,
        )
        for known in every(service)
        if known.stale
    ]


def differing(service: ServiceFacts) -> list[Finding]:
    return [
        Finding(
            f"{known.file} differs in {len(known.edited)} lines from what this llmctl writes",
            "a file as install-service writes it; what is one's own in a drop-in",
            Remedy(
                "have one's own lines in a drop-in, then write the unit anew",
                (f"{service.systemctl} edit {known.name}", service.reinstall),
            ),
            (*known.edited[:MOST_LINES], *(["…"] if len(known.edited) > MOST_LINES else [])),
            known.name,
        )
        for known in service.units.values()
        if known.edited and known.whose == "llmctl"
    ]


def environment_differs(facts: Facts) -> Judgement:
    service = facts.service
    if not service.systemd or service.scope is None:
        return None
    engine = service.units.get(unit.ENGINE)
    found = []
    if service.drift and engine is not None:
        said = [
            f"{lack.setting} is {lack.found or 'not set'}, {lack.wanted or 'nothing'} asked" for lack in service.drift
        ]
        found.append(
            Finding(
                f"{unit.ENGINE} was made of another profile than there is now: {names(said)}",
                "the settings that the profile makes",
                Remedy("write the units anew of the profile; the server is restarted", (service.reinstall,)),
                (engine.file,),
                unit.ENGINE,
            )
        )
    if service.overridden and engine is not None:
        found.append(overridden(service, engine))
    return [*found, *(not_heard(each) for each in service.shell)]


def overridden(service: ServiceFacts, engine: UnitFacts) -> Finding:
    said = [f"{lack.setting}={lack.found or ''} in place of {lack.wanted}" for lack in service.overridden]
    return Finding(
        f"a drop-in changes what the profile decides: {names(said)}",
        "what the profile decides in the profile, where every verb knows of it",
        Remedy(
            "say it in the profile and take it out of the drop-in",
            (f"{service.systemctl} edit {unit.ENGINE}", f"{service.systemctl} restart {unit.ENGINE}"),
        ),
        engine.drop_ins,
        unit.ENGINE,
        "info",
    )


def not_heard(found: Difference) -> Finding:
    """A setting of this shell that the server does not have."""
    what = {
        "OLLAMA_HOST": ": `ollama` typed here asks another server",
        "OLLAMA_MODELS": ": a server started here would have another store",
    }.get(found.what, ", and a client's variable changes nothing of a server that runs")
    return Finding(
        f"{found.what} is {found.shell} in this shell and {found.unit or 'not set'} in the unit{what}",
        f"{found.what} as the service has it, or not set",
        Remedy("take it out of this shell, and of the file that sets it", (f"unset {found.what}",)),
        subject=found.what,
    )


def linger(service: ServiceFacts) -> Judgement:
    if service.scope != "user" or service.linger is not False:
        return None
    return Finding(
        f"the units are those of {service.user}, who does not linger: they end with the last session",
        "lingering, so that they start at the boot and stay",
        Remedy("keep them always", (f"loginctl enable-linger {service.user}",)),
        subject=service.user,
    )


def restarts(service: ServiceFacts) -> Judgement:
    return [
        Finding(
            f"{known.name} was started anew {known.restarts} times by systemd since somebody started it",
            f"fewer than {MANY_RESTARTS}",
            Remedy("see why it ends", (journal(service, known.name),)),
            known.words,
            known.name,
        )
        for known in every(service)
        if known.restarts >= MANY_RESTARTS and known.active != "failed"
    ]


def boot_order(facts: Facts) -> Judgement:
    service = facts.service
    ollama = service.ollama
    if not service.systemd or ollama is None or ollama.active != "active" or ollama.discovery not in {"cpu", "failed"}:
        return None
    if ollama.since_boot_seconds is None or ollama.since_boot_seconds > EARLY_SECONDS or not facts.gpu.cards:
        return None
    return Finding(
        f"it found no GPU when it started, {ollama.since_boot_seconds:.0f} s after the boot, and NVML shows "
        f"{len(facts.gpu.cards)} now",
        "a server that starts when the driver is there",
        Remedy(
            "start it anew now; for the next boots have it wait, with a drop-in that says "
            "ExecStartPre=/usr/bin/nvidia-smi under [Service]",
            (f"sudo systemctl restart {ollama.name}", f"sudo systemctl edit {ollama.name}"),
        ),
        (ollama.discovery_words,),
        ollama.name,
    )


def watchdog(service: ServiceFacts) -> Judgement:
    guard = service.units.get(unit.GUARD)
    if guard is None:
        return None
    if guard.watchdog is None:
        return Unknown("the journal of the guard may not be read by this user")
    if not guard.watchdog:
        return None
    return Finding(
        f"systemd's watchdog ended {guard.name} {guard.watchdog} times in the last day: it had not said for 90 s that "
        "it lives",
        "none",
        Remedy(
            "see what it was at; a machine that swaps, or a disk that hangs, stops everything",
            (journal(service, guard.name), f"{service.llmctl} doctor memory store"),
        ),
        guard.words,
        guard.name,
    )


def guard_degraded(facts: Facts) -> Judgement:
    guard, service = facts.service.guard, facts.service
    if guard is None or not guard.degraded:
        return None
    return Finding(
        f"the guard has given up mending: {guard.words}",
        "every model resident and proved",
        Remedy(
            "; ".join(guard.remedies) or "mend what it says, then bring it up anew, which gives the guard fresh tries",
            (f"{service.llmctl} up",),
        ),
        (f"reason: {guard.reason}",),
    )


CHECKS = (
    Check(
        "service.edited",
        "A unit is not what llmctl writes",
        "warning",
        "The files of the units beside what this llmctl would write for the profile; variables and comments do not "
        "count here. The next install-service would lose such a change, so that it belongs into a drop-in. Also told "
        "is a change that systemd has not read yet (NeedDaemonReload, systemctl(1)).",
        installed(edited),
        after=UNITS_BROKEN,
    ),
    Check(
        "service.environment-differs",
        "The service's environment is not the profile's, or not the shell's",
        "warning",
        "The variables of the engine's unit beside those that the profile makes, as a profile that was changed counts "
        "only after install-service; drop-ins of other authors that change them, for information; and OLLAMA_* of the "
        "shell that the server does not have: OLLAMA_HOST leads `ollama` typed there to another server, and the others "
        "are not heard by one that runs.",
        environment_differs,
        after=UNITS_BROKEN,
    ),
    Check(
        "service.linger",
        "The service ends at logout",
        "warning",
        "Units of a user's own manager run from the first login to the last logout, unless the user lingers "
        "(loginctl(1)).",
        installed(linger),
    ),
    Check(
        "service.restarts",
        "A unit is started again and again",
        "warning",
        "NRestarts of the units, which counts from the last start by hand. Told from the third on.",
        installed(restarts),
        after=(*UNITS_BROKEN, "server.port-taken"),
    ),
    Check(
        "service.boot-order",
        "Ollama started before the driver",
        "warning",
        "Ollama's own unit does not wait for the NVIDIA driver, and a server that finds no GPU at its start stays on "
        "the CPU until it is started anew (ollama/ollama issue 7669). Told only where its log shows that, it started "
        "with the boot, and NVML shows a card now. llmctl's own unit waits.",
        boot_order,
        after=NO_CARD,
    ),
    Check(
        "service.watchdog",
        "The watchdog ended the guard",
        "warning",
        "The guard tells systemd that it lives; after 90 s without a word it is ended and started anew "
        "(systemd.service(5), WatchdogSec). Counted in the journal of the last day.",
        installed(watchdog),
        after=UNITS_BROKEN,
    ),
)
# What is known to make a guard give up.
GIVES_UP = tuple(
    dict.fromkeys(
        (
            *("engine.no-llama-server", "store.permissions", "store.space", "memory.does-not-fit"),
            *(*NO_LOCK, *NO_STORE, *PINS_BROKEN, *UNITS_BROKEN, *NO_CARD, *NO_SERVER),
        )
    )
)
LAST = (
    Check(
        "service.guard-degraded",
        "The guard has given up",
        "error",
        "What the guard wrote into guard.json while it lives: a model is not where it must be, and every step that it "
        "may take was taken. Where a check knows the cause, only that one is shown.",
        guard_degraded,
        after=GIVES_UP,
    ),
)
