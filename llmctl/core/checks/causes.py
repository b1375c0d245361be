"""What explains what: the checks whose findings make others pointless, in lists that say what does not work then.

A check's `after` is one of these lists, with what is particular to it beside it. A cause hides nothing that is worse
than itself (examine.explains), but for those that somebody asked for.
"""

from __future__ import annotations

# Nobody says what should run, or nothing is there to run it.
NOTHING_TO_RUN = ("profile.invalid", "engine.none")
NO_LOCK = ("profile.lock-unreadable",)

# The profile's address leads nowhere, or to something else.
NO_ANSWER = (
    *NOTHING_TO_RUN,
    *("server.address-invalid", "server.host-without-port", "server.port-taken", "server.hangs"),
)
NO_SERVER = (*NO_ANSWER, "server.two-servers", "server.not-running")

# What keeps systemd from running a unit, and what more may be wrong with its file.
UNIT_GONE = ("service.missing-unit", "service.masked")
UNITS_IDLE = (*UNIT_GONE, "service.disabled", "service.failed")
UNITS_BROKEN = (*UNITS_IDLE, "service.overwritten", "service.foreign-beside")

NO_CARD = ("gpu.container", "gpu.no-driver", "gpu.driver-mismatch", "gpu.lost")
# A card is there, and the engine may not use it.
CARD_BARRED = ("gpu.device-nodes", "gpu.visible-devices", "gpu.driver-too-old")
NO_GPU = (*NO_CARD, *CARD_BARRED, "gpu.after-suspend", "gpu.engine-sees-none")

NO_STORE = (*NOTHING_TO_RUN, "store.unreadable")
PINS_BROKEN = ("store.missing", "store.corrupt-manifest", "store.drift")

# No error where somebody ended the server or holds the guard, or brought nothing up yet; what would be one otherwise
# follows from that.
INTENDED = ("server.not-running", "server.held")
# And what does not: a server that was ended takes its runners with it.
LEFT_BEHIND = ("server.orphaned-runner",)
