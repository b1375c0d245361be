"""How a profile becomes the settings of an Ollama server, and what a foreign server lacks of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.core.profile import Profile

MIB = 1 << 20
MARKER = "LLMCTL_OWNER"
SETTINGS = "LLMCTL_SETTINGS"
FOREVER = "-1"
# What Go's ParseBool knows, in these spellings alone.
GO_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
GO_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})


def settings(profile: Profile) -> dict[str, str]:
    """The server's environment for a profile, without its address and store.

    A value is written for every variable that decides memory, so that no default of a release decides it
    (its default context depends on the VRAM: ollama v0.33.0 server/routes.go:2045-2056).
    """
    server, gpu = profile.server, profile.gpu
    chosen = {
        "OLLAMA_CONTEXT_LENGTH": str(server.context),
        "OLLAMA_KEEP_ALIVE": FOREVER,
        "OLLAMA_KV_CACHE_TYPE": server.kv_cache,
        "OLLAMA_MAX_LOADED_MODELS": str(server.max_loaded),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NUM_PARALLEL": str(server.parallel),
    }
    if server.flash_attention != "auto":
        # A Go bool: `off` would count as true (ollama v0.33.0 envconfig/config.go:177-190).
        chosen["OLLAMA_FLASH_ATTENTION"] = "1" if server.flash_attention == "on" else "0"
    if gpu.require == "full":
        # With llama.cpp's fit off, a model that does not fit fails to load; with it on, it moves to the CPU.
        chosen["LLAMA_ARG_FIT"] = "off"
    if gpu.require == "partial":
        chosen["LLAMA_ARG_FIT_TARGET"] = str(-(-gpu.reserve_bytes // MIB))
    if gpu.devices != "all":
        chosen["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in gpu.devices)
    return chosen


def server_environment(
    profile: Profile, inherited: Mapping[str, str], *, address: str, store: str, home: str, owner: str
) -> dict[str, str]:
    """The whole environment of an owned server.

    What is inherited stays (PATH, proxies, locale), except the variables that decide what the profile
    decides: an OLLAMA_* left over in a shell must not change where a model lies.
    """
    decided = settings(profile)
    dropped = {"OLLAMA_FLASH_ATTENTION", "OLLAMA_SCHED_SPREAD", "OLLAMA_GPU_OVERHEAD", "OLLAMA_LLM_LIBRARY"}
    if profile.gpu.require != "none":
        dropped |= {"LLAMA_ARG_FIT", "LLAMA_ARG_N_GPU_LAYERS"}
    kept = {key: value for key, value in inherited.items() if key not in dropped}
    own = {
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": store,
        "HOME": home,
        MARKER: owner,
        SETTINGS: fingerprint(profile),
    }
    return {**kept, **decided, **own}


def fingerprint(profile: Profile) -> str:
    """Sixteen hex digits that change when an owned server would have to be started anew."""
    import hashlib

    facts = [settings(profile), profile.engine.version, profile.private]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lack:
    """A setting of a foreign server that is not what the profile asks for. `found` None: it is not set."""

    setting: str
    wanted: str
    found: str | None


def lacks(profile: Profile, environ: Mapping[str, str], runner: Sequence[str]) -> tuple[Lack, ...]:
    """What a server that llmctl did not start lacks, from its environment and its runner's arguments.

    An empty `environ` means that it cannot be read (another user's process): then only what the runner's
    arguments show is compared.
    """
    found = []
    if environ:
        for setting, wanted in settings(profile).items():
            value = environ.get(setting)
            if not equal(setting, wanted, value):
                found.append(Lack(setting, wanted, value))
        return tuple(found)
    shown = {
        "OLLAMA_NUM_PARALLEL": (str(profile.server.parallel), argument(runner, "-np")),
        "OLLAMA_KV_CACHE_TYPE": (profile.server.kv_cache, argument(runner, "--cache-type-k") or "f16"),
    }
    return tuple(
        Lack(setting, wanted, value) for setting, (wanted, value) in shown.items() if runner and value != wanted
    )


def equal(setting: str, wanted: str, value: str | None) -> bool:
    text = as_read(value or "") if setting.startswith("OLLAMA_") else (value or "").strip()
    if not text:
        return (setting, wanted) in {("OLLAMA_KV_CACHE_TYPE", "f16"), ("OLLAMA_NUM_PARALLEL", "1")}
    if setting == "OLLAMA_KEEP_ALIVE":
        return text.startswith("-")
    if wanted in {"0", "1"} and setting in {"OLLAMA_NO_CLOUD", "OLLAMA_FLASH_ATTENTION"}:
        return go_bool(text) == (wanted == "1")
    return text.lower() == wanted.lower()


def go_bool(value: str) -> bool:
    """What ollama takes a boolean variable for: anything that Go cannot parse counts as true."""
    text = as_read(value)
    return bool(text) and text not in GO_FALSE


def as_read(value: str) -> str:
    """The value of a variable as ollama takes it, without blanks and quotes around it (v0.34.0
    envconfig/config.go:375-377). What llama.cpp or a driver reads is not trimmed."""
    return value.strip().strip("\"'")


def argument(argv: Sequence[str], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv[:-1] else None


def drop_in(missing: Sequence[Lack]) -> str:
    """The systemd drop-in that would add them."""
    lines = [f'Environment="{lack.setting}={lack.wanted}"' for lack in missing]
    return "\n".join(["[Service]", *lines])
