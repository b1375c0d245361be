"""Every check, causes before what follows from them: the order in which findings of one severity are shown."""

from __future__ import annotations

from llmctl.core.checks import clients, engine, gpu, memory, model, profile, security, server, service, speed, store
from llmctl.core.checks.finding import Check
from llmctl.errors import NotFound

# Units that are not in force keep a server from being there; other things of a service follow from the server. What
# clients do, and that a guard has given up, says why a model is not there or is not as it should be.
CHECKS: tuple[Check, ...] = (
    *profile.CHECKS,
    *engine.CHECKS,
    *gpu.CHECKS,
    *store.CHECKS,
    *service.UNITS,
    *server.CHECKS,
    *service.CHECKS,
    *memory.CHECKS,
    *clients.CHECKS,
    *service.LAST,
    *model.CHECKS,
    *speed.CHECKS,
    *security.CHECKS,
)


def chosen(names: tuple[str, ...], *, deep: bool) -> tuple[Check, ...]:
    """The checks of these ids or families; all where none is named. NotFound for a name that is neither.

    A check that is named by its id is taken even where it is a deep one.
    """
    if not names:
        return tuple(check for check in CHECKS if deep or not check.deep)
    for name in names:
        if not any(name in {check.id, check.family} for check in CHECKS):
            raise NotFound(f"no check {name}", "llmctl doctor --list")
    return tuple(check for check in CHECKS if check.id in names or (check.family in names and (deep or not check.deep)))
