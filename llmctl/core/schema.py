"""The keys of a profile, once: what validates it, the JSON Schema for editors, and the reference page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llmctl.core.kinds import Either, Items, Key, OneOf, Section, Size, Switch, Text, Whole
from llmctl.core.profile import EngineSpec, GatewaySpec, GpuSpec, ModelSpec, Profile, ServerSpec
from llmctl.core.size import write_size

HOST = Text(
    r"^([A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$",
    "an address or a host name, without scheme and port, such as 127.0.0.1",
)
PORT = Whole(1, 65535)

# llama.cpp pads a context to 256 cells, so less than that would not be what runs (src/llama-context.cpp:288).
CONTEXT = Whole(256, 16_777_216)

# As Ollama reads names (v0.34.0 types/model/name.go:344): [[host[:port]/]namespace/]model[:tag]. Left out on
# purpose: files, llmctl's own aliases, and models that run on ollama.com.
PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = Text(
    r"^(?!(registry\.ollama\.ai/)?llmctl/)(?!.*[:-]cloud$)(?![^:]*\.gguf$)"
    rf"(([A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]{{1,5}})?/)?[A-Za-z0-9_][A-Za-z0-9_-]{{0,79}}/)?{PART}(:{PART})?$",
    "a local model's name such as qwen3:8b-q4_K_M, without blanks, path or digest "
    "(a file goes into source, the digest into the lock)",
)
SOURCE = Text(
    r"^(starter|registry|[^\u0000-\u001f\u007f]*/[^\u0000-\u001f\u007f]*|[^\u0000-\u001f\u007f]+\.gguf)$",
    "starter, registry, or the path of a GGUF file",
    longest=4096,
)
VERSION = Text(
    r"^[0-9]+\.[0-9]+\.[0-9]+(-rc[0-9]+)?$", "a version with three numbers, in quotes where in doubt: 0.34.0"
)
SENTENCE = Text(r"^[^\u0000-\u001f\u007f-\u009f\ud800-\udfff]*$", "one line of at most 300 characters")

# The names that llama.cpp gives the values of `general.file_type` (include/llama.h, llama_ftype).
FILE_TYPES = """
F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K
IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4
"""
QUANTIZATION = OneOf(tuple(FILE_TYPES.split()))

ENGINE = Section(
    {
        "kind": Key(OneOf(("ollama",)), "The server program.", EngineSpec.kind),
        "version": Key(VERSION, "Exactly this version. Without it, any that is new enough.", EngineSpec.version),
    }
)

SERVER = Section(
    {
        "host": Key(HOST, "The address the server listens on, or is found at.", ServerSpec.host),
        "port": Key(PORT, "Its port.", ServerSpec.port),
        "context": Key(CONTEXT, "Tokens of context in each slot, prompt and answer together.", ServerSpec.context),
        "parallel": Key(
            Whole(1, 256),
            "Slots: requests answered at the same time. Each slot has a KV cache of its own.",
            ServerSpec.parallel,
        ),
        "kv_cache": Key(
            OneOf(("f16", "q8_0", "q4_0")),
            "Type of the KV cache. q8_0 takes a little over half of what f16 takes, q4_0 over a quarter.",
            ServerSpec.kv_cache,
        ),
        "flash_attention": Key(
            OneOf(("auto", "on", "off")),
            "Flash attention. A KV cache that is not f16 needs it.",
            ServerSpec.flash_attention,
        ),
        "max_loaded": Key(Whole(1, 64), "How many models may be in memory at the same time.", ServerSpec.max_loaded),
    }
)

MODEL = Section(
    {
        "name": Key(NAME, "The model's name in its registry, or the name it gets here.", required=True),
        "source": Key(
            SOURCE,
            "Where it comes from: a registry, the packaged starter model, or a GGUF file "
            "(a relative path starts at the profile's folder).",
            ModelSpec.source,
        ),
        "fallback": Key(
            OneOf(("starter",)),
            "What serves where the registry cannot be reached.",
            ModelSpec.fallback,
        ),
        "context": Key(
            CONTEXT,
            "Tokens of context for this model, where they differ from the server's.",
            ModelSpec.context,
        ),
        "resident": Key(Switch(), "Load it at `llmctl up` and keep it in memory.", ModelSpec.resident),
        "quantization": Key(
            QUANTIZATION,
            "What the weights must be. llmctl reads it from the GGUF file, not from the name.",
            ModelSpec.quantization,
        ),
    }
)

GPU = Section(
    {
        "require": Key(
            OneOf(("full", "partial", "none")),
            "full: wholly on the GPU, or `up` fails. partial: as many layers as fit. none: anywhere.",
            GpuSpec.require,
        ),
        "reserve": Key(Size(), "Memory to leave free on each GPU.", write_size(GpuSpec.reserve_bytes)),
        "devices": Key(
            Either(OneOf(("all",)), Items(Whole(0, 63), "GPU numbers", distinct=True)),
            "Which GPUs to use: all, or their numbers.",
            GpuSpec.devices,
        ),
    }
)

GATEWAY = Section(
    {
        "host": Key(HOST, "The address that `llmctl serve` listens on.", GatewaySpec.host),
        "port": Key(PORT, "Its port.", GatewaySpec.port),
    }
)

PROFILE = Section(
    {
        "schema": Key(OneOf((1,)), "The version of this format.", required=True),
        "description": Key(SENTENCE, "What the profile is for, in one line.", Profile.description),
        "private": Key(
            Switch(),
            "Keep away from a server and models that are already there: a model store of its own, "
            "and a free port unless server.port is set.",
            Profile.private,
        ),
        "engine": Key(ENGINE, "The server program."),
        "server": Key(SERVER, "Settings of the whole server, the same for every model on it."),
        "models": Key(Items(MODEL, "models"), "The models, the first being the default.", required=True),
        "gpu": Key(GPU, "Where the models must lie."),
        "gateway": Key(GATEWAY, "The gateway of `llmctl serve`."),
    }
)


def json_schema() -> dict[str, Any]:
    """The profile as a JSON Schema (draft 7, which editors know best)."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "llmctl profile",
        "description": "The declared state of one local LLM server. Generated from llmctl/core/schema.py.",
        **PROFILE.json_schema(),
    }


def json_schema_text() -> str:
    """profiles/profile.schema.json as it is committed."""
    return json.dumps(json_schema(), indent=2) + "\n"


def profile_reference() -> str:
    """docs/profile.md: every key with what it allows, its default and its meaning."""
    return "\n".join(["# The profile, key by key", "", _INTRODUCTION, *_section("", PROFILE)])


_INTRODUCTION = """\
This page is generated from `llmctl/core/schema.py`, which is also what validates a profile.

A profile is a YAML file that says what the machine's LLM server should be. You write it; llmctl reads it
and never rewrites it. `llmctl init` writes a first one for this machine's GPUs, `llmctl profiles` lists
those that are shipped, and `llmctl config` shows each setting in force and where it came from.

It is read as YAML 1.2: `yes` and `on` are words, not switches. Tags, anchors, aliases and a key written
twice are errors, and so is every key that is not on this page. An editor with a YAML language server
completes and checks the keys by `profiles/profile.schema.json`; each shipped profile names it in its first
line. What no single key can show is checked too: no model twice, no more resident models than
`max_loaded`, no KV cache other than f16 with flash attention off, `fallback` only with `source: registry`,
and different ports for the server and the gateway.
"""


def _section(prefix: str, section: Section) -> Iterator[str]:
    yield from (f"## `{prefix}`" if prefix else "## The whole", "")
    yield from ("| key | allowed | default | meaning |", "|---|---|---|---|")
    for name, key in section.keys.items():
        nested = _nested(key)
        allowed = f"see [`{name}`](#{name})" if nested else key.kind.allowed
        yield f"| `{name}` | {allowed} | {_default(key)} | {key.description} |"
    yield ""
    for name, key in section.keys.items():
        if nested := _nested(key):
            yield from _section(name, nested)


def _nested(key: Key) -> Section | None:
    kind = key.kind.kind if isinstance(key.kind, Items) else key.kind
    return kind if isinstance(kind, Section) else None


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if _nested(key):
        return ""
    if isinstance(key.default, bool):
        return f"`{json.dumps(key.default)}`"
    return f"`{key.default}`" if key.default else "unset"
