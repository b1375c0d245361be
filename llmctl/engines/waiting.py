"""What goes before a server that systemd starts: the right engine, a pause after quick deaths, a GPU that is usable,
and the secrets that its unit must not name."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.engine import Engine, Rule
from llmctl.core.profile import Profile
from llmctl.core.progress import Progress, Step
from llmctl.core.unit import AWAITS_GPU, CREDENTIAL
from llmctl.engines import Engines
from llmctl.errors import EngineMissing, LlmctlError
from llmctl.system import devices
from llmctl.system.files import atomic_write, read_bounded, translated

# The starts of the last while, in the runtime folder: systemd's own count of restarts never falls again.
STARTS = "starts.json"
WINDOW_SECONDS = 600.0
# A crash now and then is mended at once; what dies again and again waits longer each time.
FREE_STARTS = 3
LONGEST_PAUSE_SECONDS = 60.0

POLL_SECONDS = 1.0
SAY_SECONDS = 60.0
LIMIT_BYTES = 64 << 10
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Waited:
    """What the server may use now, and what had to be waited for."""

    engine: str
    devices: tuple[str, ...]
    pause_seconds: float
    waited_seconds: float


def serving_engine(engines: Engines, profile: Profile) -> Engine:
    """The engine for a service: the chosen one without looking further, else what `up` would take."""
    chosen = engines.store.current()
    if chosen is not None:
        return chosen
    search = engines.search(Rule(profile.engine.version))
    if search.engine is None:
        passed_over = f" (passed over: {'; '.join(search.passed_over)})" if search.passed_over else ""
        raise EngineMissing(f"there is no engine{passed_over}", "llmctl engine install")
    return search.engine


def hold_back(runtime: Path, progress: Progress) -> float:
    """Pause where it was started often lately, whatever ended it; the seconds."""
    seconds = pause(noted(runtime, time.time()))
    if seconds:
        progress(Step("pause", "pause", detail=f"started {FREE_STARTS} times and more lately: {seconds:.0f} s"))
        time.sleep(seconds)
        progress(Step("pause", "pause", "done", f"{seconds:.0f} s"))
    return seconds


def wait(engines: Engines, profile: Profile, seconds: float, progress: Progress) -> Waited:
    """Wait without limit for what the profile requires. `seconds` is what was paused before."""
    engine = serving_engine(engines, profile)
    if profile.gpu.require == "none":
        return Waited(engine.version, (), seconds, 0.0)
    began = time.monotonic()
    found = usable(lambda: devices.list_devices(engine.runner, engines.environ), progress)
    names = tuple(f"{device.name} {device.description}" for device in found)
    progress(Step("gpu", "gpu", "done", ", ".join(names)))
    return Waited(engine.version, names, seconds, time.monotonic() - began)


def usable(look: Callable[[], tuple[devices.Device, ...]], progress: Progress) -> tuple[devices.Device, ...]:
    """The devices that the engine names, as soon as it names one; says every minute what is waited for."""
    began, minutes = time.monotonic(), 0
    while not (found := look()):
        refuse_stale_rules()
        waited = time.monotonic() - began
        if waited >= minutes * SAY_SECONDS:
            detail = AWAITS_GPU + (f"; {minutes} min by now" if minutes else "")
            # A step of its own each time: one that runs would be said again every few seconds.
            progress(Step(f"gpu {minutes}", "gpu", "skipped", detail))
            minutes += 1
        time.sleep(POLL_SECONDS)
    return found


def refuse_stale_rules() -> None:
    """systemd knows the devices that a unit may use from when it started it. A driver that came later needs a start
    anew: then the kernel denies what file permissions would allow, with another error than theirs."""
    for path in sorted([*DEVICES.glob("nvidia*"), *DEVICES.glob("dri/render*"), *DEVICES.glob("kfd")]):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except PermissionError as error:
            if error.errno == errno.EPERM:
                raise LlmctlError(f"{path} came after this unit was started: it begins anew") from None
        except OSError:
            continue


def noted(runtime: Path, now_seconds: float) -> int:
    """Note a start; how many there were before it within the window."""
    path = runtime / STARTS
    try:
        known = [float(each) for each in json.loads(read_bounded(path, LIMIT_BYTES))["starts_seconds"]]
    except (LlmctlError, ValueError, KeyError, TypeError):
        known = []
    recent = [each for each in known if 0 <= now_seconds - each < WINDOW_SECONDS]
    atomic_write(path, json.dumps({"schema": 1, "starts_seconds": [*recent, now_seconds]}).encode())
    return len(recent)


def pause(earlier: int) -> float:
    """Seconds to wait before a start that had `earlier` ones lately: 0 0 0 2 4 8 … 60."""
    over = earlier - FREE_STARTS + 1
    return 0.0 if over <= 0 else min(LONGEST_PAUSE_SECONDS, 2.0**over)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's: with the credentials, and a forwarder's address in place of a proxy that has a password."""
    from llmctl.system import forward

    return {**environ, **forward.without_passwords(secrets(environ), environ)}


def secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that systemd hands over as credentials: a file `llmctl_NAME` for each."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return {}
    found = {}
    with translated("read", folder):
        paths = sorted(Path(folder).glob(f"{CREDENTIAL}_*"))
    for path in paths:
        name = path.name.removeprefix(f"{CREDENTIAL}_")
        if NAME.fullmatch(name):
            found[name] = read_bounded(path, LIMIT_BYTES).decode("utf-8", "replace").rstrip("\n")
    return found
