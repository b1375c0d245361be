"""Checks of the security: who may reach the server, what lies open, and known faults of its release."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.core.checks import security_files, security_open
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Severity, Unknown
from llmctl.core.checks.security_open import loopback
from llmctl.core.checks.words import names
from llmctl.core.cves import Fault
from llmctl.core.engine import version_key

# So old is the table when new faults have surely come to be known since.
OLD_DAYS = 180
# What is older lets whoever may send a request run code of their own, or write outside of the store.
LEAST_VERSION = "0.1.47"
MOST_SHOWN = 4


def cve(facts: Facts) -> Judgement:
    version, table, age = (
        facts.server.version or facts.engine.version,
        facts.security.faults,
        facts.security.faults_age_days,
    )
    if version is None:
        return Unknown("the engine's version is not known")
    if table is None:
        return Unknown("llmctl's table of known faults cannot be read")
    known = table.of(version)
    if known is None:
        return Unknown(f"{version} is no version to compare")
    old = f", {age} days ago: what came to be known since is not in it" if age > OLD_DAYS else ""
    if not known:
        return Unknown(f"the table of known faults is of {table.read}{old}") if old else None
    newest = max((each.fixed for each in known if each.fixed), key=lambda text: version_key(text) or (), default=None)
    return Finding(
        f"Ollama {version} has {len(known)} known faults, among them {names([each.id for each in known][::-1])}",
        f"Ollama {newest or 'newer than those'}, or newer",
        upgrade(facts),
        (*told(known), f"the table of known faults is of {table.read}{old}"),
        f"Ollama {version}",
        how_bad(version, known, facts),
    )


def told(known: Sequence[Fault]) -> list[str]:
    """The last few, which are those that fewest upgrades have mended."""
    return [
        f"{each.id}: {each.what} ({'mended in ' + each.fixed if each.fixed else 'seen in ' + each.affected}; "
        f"{each.source}, read {each.read})"
        for each in known[::-1][:MOST_SHOWN]
    ]


def how_bad(version: str, known: Sequence[Fault], facts: Facts) -> Severity:
    wide = any(not loopback(address) for address in facts.security.addresses or ())
    own, least = version_key(version), version_key(LEAST_VERSION)
    oldest = own is not None and least is not None and own < least
    return "error" if oldest or (wide and any(each.reach == "network" for each in known)) else "warning"


def upgrade(facts: Facts) -> Remedy:
    if facts.server.answers and facts.server.owner == "foreign":
        return Remedy(
            "upgrade it the way that it was installed, or have an engine of llmctl's own in its place",
            ("ollama --version", "llmctl engine install"),
        )
    llmctl = "sudo llmctl" if facts.server.up.startswith("sudo") else "llmctl"
    return Remedy(
        "upgrade the engine; what is running is proved again afterwards, and it can be rolled back",
        (f"{llmctl} engine upgrade",),
    )


CHECKS = (
    *security_open.CHECKS,
    *security_files.CHECKS,
    Check(
        "security.cve",
        "The engine has known faults",
        "warning",
        "The running version beside llmctl/system/cves.yaml, a table in which every row has the affected versions, its "
        "source and the month in which that was read. An error where one of them can be reached over the network and "
        "the server is open beyond this machine, and for anything before 0.1.47. Unknown where nothing is known of a "
        "version and the table is older than 180 days.",
        cve,
        after=("engine.none",),
    ),
)
