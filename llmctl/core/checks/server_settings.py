"""Checks of the server's settings: as the profile asks, as they were understood, and as the runner got them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmctl.core import serving
from llmctl.core.checks.causes import NO_SERVER
from llmctl.core.checks.facts import Facts, NotGathered
from llmctl.core.checks.facts.models import ResidentFacts
from llmctl.core.checks.finding import Check, Finding, Judgement, Remedy, Unknown
from llmctl.core.checks.logged import unsaid_at_load
from llmctl.core.checks.wanted import anew_with, restarted
from llmctl.core.serving import GO_TRUE, Lack, argument, as_read

# Read by Go's ParseBool, and whatever that does not know is true (ollama v0.34.0 envconfig/config.go:177-190).
BOOLEANS = frozenset(
    {
        *("OLLAMA_AUTH", "OLLAMA_DEBUG_LOG_REQUESTS", "OLLAMA_FLASH_ATTENTION", "OLLAMA_GO_TEMPLATE"),
        *("OLLAMA_IGPU_ENABLE", "OLLAMA_NOHISTORY", "OLLAMA_NOPRUNE", "OLLAMA_NO_CLOUD", "OLLAMA_SCHED_SPREAD"),
        "OLLAMA_VULKAN",
    }
)
MEANT_TRUE = frozenset({"t", "true", "y", "yes", "on", "enable", "enabled"})
KEEP_ALIVE = "OLLAMA_KEEP_ALIVE"
DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|[+-]?\d+")
FOREVER = "2562047h47m16"


def environment(facts: Facts) -> Mapping[str, str]:
    """Of the server's process; empty where it cannot be read."""
    process = facts.server.process
    return process.environ if process is not None else {}


def go_bool(facts: Facts) -> Judgement:
    return [
        mistaken(facts, name, value) for name, value in sorted(environment(facts).items()) if is_mistaken(name, value)
    ]


def is_mistaken(name: str, value: str) -> bool:
    text = as_read(value)
    known = text in GO_TRUE or text.lower() in MEANT_TRUE
    return name in BOOLEANS and serving.go_bool(value) and not known


def mistaken(facts: Facts, name: str, value: str) -> Finding:
    return Finding(
        f"{name}={value}, which Ollama takes for true",
        f"{name}=0 for no, {name}=1 for yes: it knows no other words",
        Remedy("write 0 or 1 where it is set, and start the server anew", set_anew(facts, [Lack(name, "0", value)])),
        subject=name,
    )


def set_anew(facts: Facts, lacks: list[Lack]) -> tuple[str, ...]:
    """The commands that give the server these settings, which the profile decides."""
    server, process = facts.server, facts.server.process
    said = {lack.setting: lack.wanted for lack in lacks}
    if server.owner == "systemd":
        own = process is not None and process.scope == "user"
        return (f"{'llmctl' if own else server.root} install-service{' --user' if own else ''}{server.which}",)
    if server.owner == "foreign" and process is not None and process.unit is not None and process.scope == "system":
        return (f"{server.root} install-service --adopt{server.which}",)
    return anew_with(facts, said)


def keep_alive(facts: Facts) -> Judgement:
    """One that Ollama cannot read; one that it reads and that ends is for `server.settings`."""
    value = as_read(environment(facts).get(KEEP_ALIVE, ""))
    if not value or DURATION.fullmatch(value):
        return None
    return Finding(
        f"{KEEP_ALIVE}={value}, which Ollama cannot read: it takes 5m without a word",
        f"{KEEP_ALIVE}=-1, for ever",
        Remedy("write -1 where it is set, and start the server anew", set_anew(facts, [Lack(KEEP_ALIVE, "-1", value)])),
        subject=KEEP_ALIVE,
    )


def settings(facts: Facts) -> Judgement:
    lacks = facts.server.lacks
    if lacks is None:
        lacks = logged(facts)
    if lacks is None:
        return Unknown("neither the server's environment nor its log can be read, and no runner of it can be seen")
    environ = environment(facts)
    lacks = tuple(lack for lack in lacks if not is_mistaken(lack.setting, environ.get(lack.setting, "")))
    if not lacks:
        return None
    own = facts.server.owner == "llmctl"
    commands = (facts.server.up,) if own else set_anew(facts, list(lacks))
    return Finding(
        "; ".join(f"{lack.setting} is {lack.found or 'not set'}" for lack in lacks),
        "; ".join(f"{lack.setting}={lack.wanted}" for lack in lacks),
        Remedy("give the server the profile's settings", commands, safe=own and facts.server.up.startswith("llmctl ")),
        subject=facts.server.url,
    )


def logged(facts: Facts) -> tuple[Lack, ...] | None:
    """The same of what the server logged at its start; None where no log tells."""
    profile = facts.profile.profile
    try:
        config = facts.log.config
    except NotGathered:
        return None
    if profile is None or config is None:
        return None
    wanted = serving.settings(profile)
    return tuple(
        Lack(name, value, config[name] or None)
        for name, value in wanted.items()
        if name in config and not equal(name, value, config[name])
    )


def equal(name: str, wanted: str, value: str) -> bool:
    """Whether a logged value is the wanted one: a keep-alive for ever is logged as Go's longest duration."""
    if name == KEEP_ALIVE:
        return value.startswith(FOREVER)
    return serving.equal(name, wanted, value or None)


def of_runners(facts: Facts) -> list[tuple[ResidentFacts, str]]:
    """The resident models whose runner's arguments are seen, each with the words for its process."""
    return [(model, f"pid {model.runner_pid}") for model in facts.models.resident if model.runner_argv]


def lacking(facts: Facts, name: str) -> bool:
    """Whether the server was started with another value, which `server.settings` says."""
    return any(lack.setting == name for lack in facts.server.lacks or ())


def context(facts: Facts) -> Judgement:
    loads = [(model, model.loaded.context) for model, _ in of_runners(facts) if model.loaded is not None]
    smaller = [(model, tokens) for model, tokens in loads if tokens is not None and tokens < model.context]
    if not smaller:
        return None
    said = facts.log.context_capped.text if facts.log.context_capped else ""
    found = [
        Finding(
            f"a context of {tokens:,} tokens: the model was made for no more",
            f"{model.context:,} tokens, as the profile asks",
            Remedy(
                f"write `context: {tokens}` in the profile, or choose a model of a longer context",
                (facts.server.up,),
            ),
            (said,),
            model.name,
        )
        for model, tokens in smaller
        if re.search(rf"n_ctx_train={tokens}\b", said)
    ]
    return found or unsaid_at_load(facts.log, smaller[0][0].weights_digest)


def slots_cut(facts: Facts) -> Judgement:
    profile = facts.profile.profile
    if profile is None or lacking(facts, "OLLAMA_NUM_PARALLEL"):
        return None
    wanted = profile.server.parallel
    found = []
    for model, process in of_runners(facts):
        slots = argument(model.runner_argv, "-np")
        if slots is not None and slots.isdigit() and int(slots) < wanted:
            found.append(
                Finding(
                    f"{slots} slot{'' if slots == '1' else 's'}: requests to it wait for each other",
                    f"{wanted} slots, as server.parallel says",
                    Remedy(
                        "write `parallel: 1` in the profile, so that it says what is true, or choose a model of "
                        "another family",
                        (facts.server.up,),
                    ),
                    (f"{process}: -np {slots}", *cut_line(facts)),
                    model.name,
                )
            )
    return found


def cut_line(facts: Facts) -> tuple[str, ...]:
    try:
        return (facts.log.slots_cut.text,) if facts.log.slots_cut else ()
    except NotGathered:
        return ()


def kv_cache(facts: Facts) -> Judgement:
    profile = facts.profile.profile
    if profile is None or lacking(facts, "OLLAMA_KV_CACHE_TYPE"):
        return None
    return [
        negotiated(facts, model, f"{process}: --cache-type-k {got}", f"a KV cache of {got}", profile.server.kv_cache)
        for model, process in of_runners(facts)
        if (got := argument(model.runner_argv, "--cache-type-k") or "f16") != profile.server.kv_cache
    ]


def flash_attention(facts: Facts) -> Judgement:
    profile = facts.profile.profile
    if profile is None or profile.server.flash_attention == "auto" or lacking(facts, "OLLAMA_FLASH_ATTENTION"):
        return None
    wanted = profile.server.flash_attention
    return [
        negotiated(facts, model, f"{process}: --flash-attn {got}", f"flash attention {got}", wanted)
        for model, process in of_runners(facts)
        if (got := argument(model.runner_argv, "--flash-attn") or "auto") != wanted
    ]


def negotiated(facts: Facts, model: ResidentFacts, evidence: str, observed: str, wanted: str) -> Finding:
    return Finding(
        f"the runner has {observed}",
        f"{wanted}, as the profile asks and the server was told",
        Remedy(
            "start the server anew, so that it loads the model with its own settings",
            restarted(facts),
        ),
        (evidence,),
        model.name,
    )


CHECKS = (
    Check(
        "server.go-bool",
        "A word that Ollama takes for true",
        "warning",
        "Ollama reads its switches with Go's ParseBool, and takes every word that this does not know for true: `off`, "
        "`no` and `none` switch on (ollama v0.34.0 envconfig/config.go:177-190). Looked at in the environment of the "
        "server's process.",
        go_bool,
        after=NO_SERVER,
    ),
    Check(
        "server.keep-alive",
        "A keep-alive that Ollama cannot read",
        "warning",
        "OLLAMA_KEEP_ALIVE is a Go duration or a number of seconds; anything else counts as five minutes, and "
        "nothing says so (ollama v0.34.0 envconfig/config.go:129-147). The model is then unloaded when it has been "
        "idle for as long.",
        keep_alive,
        after=NO_SERVER,
    ),
    Check(
        "server.settings",
        "Settings are not the profile's",
        "warning",
        "The settings that the profile becomes are compared with the environment of the server's process; where "
        "another user's cannot be read, with the arguments of its runner, else with the `server config` line that it "
        "logs at its start (ollama v0.34.0 server/routes.go:1965).",
        settings,
        after=(*NO_SERVER, "server.keep-alive"),
    ),
    Check(
        "server.context",
        "The context was cut to the model's own",
        "error",
        "A context above that which the model was trained for is lowered to it with a line in the log and nothing else "
        "(ollama v0.34.0 llm/server.go:111-116).",
        context,
        after=NO_SERVER,
    ),
    Check(
        "server.slots-cut",
        "Fewer slots than asked for",
        "warning",
        "Embedding models, and families such as mllama, qwen3vl, qwen35, qwen3next, lfm2 and nemotron_h, are loaded "
        "with one slot whatever OLLAMA_NUM_PARALLEL says (ollama v0.34.0 server/sched.go:500-510). The runner's "
        "arguments tell.",
        slots_cut,
        after=NO_SERVER,
    ),
    Check(
        "server.kv-cache",
        "The KV cache has another type",
        "warning",
        "The type of the KV cache decides its size: q8_0 takes half of f16. It is read of the runner's arguments "
        "(ollama v0.34.0 llm/llama_server.go:369-430), where the server itself was told what the profile asks.",
        kv_cache,
        after=NO_SERVER,
    ),
    Check(
        "server.flash-attention",
        "Flash attention is not as asked",
        "warning",
        "A quantised KV cache needs flash attention, and without it the compute buffers grow. It is read of the "
        "runner's arguments, where the server itself was told what the profile asks.",
        flash_attention,
        after=(*NO_SERVER, "server.go-bool"),
    ),
)
