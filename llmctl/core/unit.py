"""The systemd units of the service, as text: from a profile and the places of one installation.

Only directives that systemd 252 knows. A unit of the whole machine names fixed paths alone, so it is the same on
every machine with the same profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmctl.core import serving
from llmctl.core.unit_text import MARK, command, environment_line, escaped, unit

if TYPE_CHECKING:
    from llmctl.core.profile import Profile

Scope = Literal["system", "user"]

ENGINE = "llmctl-engine.service"
GUARD = "llmctl-guard.service"
TARGET = "llmctl.target"
UNITS = (ENGINE, GUARD, TARGET)
# Only where it was asked for: root's, who loads nvidia_uvm anew when the guard asks.
UVM = "llmctl-uvm.service"
UVM_PATH = "llmctl-uvm.path"
ALL_UNITS = (*UNITS, UVM, UVM_PATH)
FOREIGN = "ollama.service"
DROP_IN = "llmctl.conf"
SYSUSERS = "llmctl.conf"
USER = "llmctl"

# What `llmctl engine wait` says while it waits, and the guard reads in the unit's journal.
AWAITS_GPU = "the engine names no GPU yet"
# Where `engine serve` finds what must not stand in a unit, which everybody may read.
CREDENTIAL = "llmctl"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# `engine wait` lengthens the pause before each restart; the fifteenth within this time ends in `failed`.
LIMIT_SECONDS = 1200
LIMIT_STARTS = 15


@dataclass(frozen=True)
class Site:
    """Where one installation lives. `llmctl` is the command, `profile` what names the profile, `folders` are LLMCTL_*
    variables; `engine` is False where Ollama's own unit was adopted, `uvm` True where root may reset nvidia_uvm."""

    scope: Scope
    llmctl: tuple[str, ...]
    address: str
    store: str
    home: str
    state: str
    credentials: str
    profile: str
    folders: tuple[tuple[str, str], ...] = ()
    engine: bool = True
    uvm: bool = False

    @property
    def wanted_by(self) -> str:
        return "multi-user.target" if self.scope == "system" else "default.target"


def units(site: Site, profile: Profile) -> dict[str, str]:
    """Every unit of an installation by its name."""
    made = {GUARD: guard_unit(site), TARGET: target_unit(site)}
    if site.engine:
        made = {ENGINE: engine_unit(site, profile), **made}
    return {**made, UVM: uvm_unit(), UVM_PATH: uvm_path_unit()} if site.uvm else made


def engine_unit(site: Site, profile: Profile) -> str:
    environment = {**variables(site), **server_variables(site, profile)}
    start = (*site.llmctl, "engine")
    return unit(
        {
            "Unit": [
                "Description=Ollama with the models that llmctl keeps resident",
                *network(site),
                f"PartOf={TARGET}",
                f"StartLimitIntervalSec={LIMIT_SECONDS}",
                f"StartLimitBurst={LIMIT_STARTS}",
            ],
            "Service": [
                "Type=exec",
                *(environment_line(key, value) for key, value in environment.items()),
                "# A file for each secret, such as HTTPS_PROXY; `engine serve` hands them to Ollama.",
                f"LoadCredential={CREDENTIAL}:{escaped(site.credentials)}",
                *nvidia(site),
                f"ExecStartPre={command((*start, 'wait'))}",
                f"ExecStart={command((*start, 'serve'))}",
                "# A GPU may take its time to appear; the target does not wait for it.",
                "TimeoutStartSec=infinity",
                "TimeoutStopSec=30",
                "KillMode=control-group",
                "Restart=always",
                "RestartSec=250ms",
                "# One runner that is killed for its memory is loaded again by the guard.",
                "OOMPolicy=continue",
                *confinement(site, "engine"),
            ],
        }
    )


def guard_unit(site: Site) -> str:
    environment = {**variables(site), "OLLAMA_HOST": site.address}
    return unit(
        {
            "Unit": [
                "Description=Keeps the pinned models of llmctl resident on the GPU",
                # Not after llmctl's own engine, so that somebody says what that waits for.
                *([] if site.engine else [f"After={FOREIGN}"]),
                f"PartOf={TARGET}",
                "StartLimitIntervalSec=300",
                "StartLimitBurst=20",
            ],
            "Service": [
                "Type=notify",
                "NotifyAccess=main",
                *(environment_line(key, value) for key, value in environment.items()),
                f"ExecStart={command((*site.llmctl, 'guard', *(['--reset-uvm'] if site.uvm else [])))}",
                "# It is ready when the models are resident and proved, however long that takes.",
                "TimeoutStartSec=infinity",
                "TimeoutStopSec=15",
                "WatchdogSec=90",
                "Restart=always",
                "RestartSec=1",
                *confinement(site, "guard"),
            ],
        }
    )


def target_unit(site: Site) -> str:
    wants = " ".join([*([ENGINE] if site.engine else []), GUARD, *([UVM_PATH] if site.uvm else [])])
    return unit(
        {
            "Unit": [
                "Description=The local models of llmctl",
                f"Wants={wants}",
                "# Not ordered after its services, so that a GPU that is missing never delays the boot.",
                "DefaultDependencies=no",
                "Conflicts=shutdown.target",
                "Before=shutdown.target",
            ],
            "Install": [f"WantedBy={site.wanted_by}"],
        }
    )


def uvm_path_unit() -> str:
    """Waits for the file that the guard makes when the GPU answers and CUDA does not, as after a suspend."""
    return unit(
        {
            "Unit": [
                "Description=Asks root to load nvidia_uvm anew when the guard of llmctl says so",
                f"PartOf={TARGET}",
            ],
            "Path": ["PathExists=/run/llmctl/reset-uvm", f"Unit={UVM}"],
        }
    )


def uvm_unit() -> str:
    """The module can go only while nobody has it open, so the engine ends first. The file is the answer."""
    return unit(
        {
            "Unit": [
                "Description=Loads nvidia_uvm anew",
                "StartLimitIntervalSec=600",
                "StartLimitBurst=5",
            ],
            "Service": [
                "Type=oneshot",
                f"ExecStart=-/usr/bin/systemctl stop {ENGINE}",
                "ExecStart=-/usr/sbin/modprobe --remove nvidia_uvm",
                "ExecStart=-/usr/sbin/modprobe nvidia_uvm",
                "ExecStart=-/usr/bin/nvidia-modprobe -u -c 0",
                "ExecStart=/usr/bin/rm -f /run/llmctl/reset-uvm",
                f"ExecStopPost=/usr/bin/systemctl --no-block start {ENGINE}",
            ],
        }
    )


def sysusers() -> str:
    """The user of the system's services, and the groups that own GPUs."""
    lines = [
        MARK,
        "g video -",
        "g render -",
        f'u {USER} - "llmctl" /var/lib/llmctl/home /usr/sbin/nologin',
        f"m {USER} video",
        f"m {USER} render",
    ]
    return "\n".join(lines) + "\n"


def adoption(missing: Sequence[serving.Lack]) -> str:
    """The drop-in for Ollama's own unit: what it lacks of the profile. It survives Ollama's installer."""
    return unit({"Service": [environment_line(lack.setting, lack.wanted) for lack in missing]})


def variables(site: Site) -> dict[str, str]:
    """What every verb in a unit is told."""
    return {"LLMCTL_SCOPE": site.scope, "LLMCTL_PROFILE": site.profile, **dict(site.folders)}


def server_variables(site: Site, profile: Profile) -> dict[str, str]:
    """The environment of the server, which `engine serve` hands on."""
    return {
        "HOME": site.home,
        "OLLAMA_HOST": site.address,
        "OLLAMA_MODELS": site.store,
        **serving.settings(profile),
        serving.MARKER: site.state,
        serving.SETTINGS: serving.fingerprint(profile),
    }


def network(site: Site) -> list[str]:
    return ["After=network.target"] if site.scope == "system" else []


def nvidia(site: Site) -> list[str]:
    """nvidia-modprobe is setuid root, which NoNewPrivileges takes away: systemd itself runs it, where it is there."""
    return ["ExecStartPre=+-/usr/bin/nvidia-modprobe -u -c 0"] if site.scope == "system" else []


def confinement(site: Site, which: Literal["engine", "guard"]) -> list[str]:
    """What a service may not do. A user's own manager can enforce only a part of it."""
    anywhere = [
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
        "UMask=0022",
        "# No MemoryDenyWriteExecute: CUDA compiles kernels as it runs, and libffi may need it for NVML.",
    ]
    return [*anywhere, *system_confinement(which)] if site.scope == "system" else anywhere


def system_confinement(which: Literal["engine", "guard"]) -> list[str]:
    own = {
        "engine": [
            "StateDirectory=llmctl/models llmctl/state llmctl/home",
            "CacheDirectory=llmctl",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        ],
        "guard": [
            "SupplementaryGroups=systemd-journal",
            "StateDirectory=llmctl/state",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            "IPAddressDeny=any",
            "IPAddressAllow=localhost",
        ],
    }
    return [
        f"User={USER}",
        f"Group={USER}",
        "# Not ProcSubset=pid: llama.cpp and NVML read /proc/meminfo, /proc/cpuinfo and /proc/driver.",
        "# Not PrivateUsers: the guard reads the engine's environment, which another user namespace would hide.",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "SystemCallFilter=~@privileged @resources @mount @debug @cpu-emulation @obsolete"
        if which == "guard"
        else "SystemCallFilter=~@privileged @mount @debug @cpu-emulation @obsolete",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "ProtectProc=invisible",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "PrivateTmp=yes",
        "PrivateMounts=yes",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "RuntimeDirectory=llmctl",
        "RuntimeDirectoryPreserve=yes",
        *own[which],
        "# A class that is not there is passed over. `m` lets nvidia-modprobe make the nodes.",
        "DevicePolicy=closed",
        *(f"DeviceAllow=char-{name} rwm" for name in DEVICE_CLASSES),
    ]


# NVIDIA's (older drivers say nvidia-frontend), then those of /dev/dri and /dev/kfd.
DEVICE_CLASSES = (
    "nvidia",
    "nvidia-frontend",
    "nvidiactl",
    "nvidia-modeset",
    "nvidia-uvm",
    "nvidia-caps",
    "drm",
    "kfd",
)
