"""fit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, complete_models
from llmctl.core.memory.fit import Typed
from llmctl.core.memory.quantize import MIXTURES
from llmctl.errors import ExitCode, UsageError
from llmctl.output import Output
from llmctl.output.fit import fit_lines, together_lines
from llmctl.workflows import fit as workflow

if TYPE_CHECKING:
    from llmctl.core.profile import Profile
    from llmctl.env import Env

MIB = 1 << 20
CACHES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
FLASH = ("auto", "on", "off")
BACKENDS = ("cuda", "rpc", "cpu")


def fit(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A GGUF file, a model of the store, or a name in a registry. Default: the profile's resident models.",
            autocompletion=complete_models,
        ),
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of one slot.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, max=64, help="Slots: users at once.")] = None,
    kv_cache: Annotated[str | None, typer.Option(metavar="TYPE", help=", ".join(CACHES))] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=65536, help="Default: what Ollama chooses.")] = None,
    flash_attention: Annotated[str | None, typer.Option(metavar="on|off|auto", help="Default: auto.")] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="SIZES", help="Free memory: 24GiB, or 24GiB,24GiB, or none. Default: this machine."),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="cuda|rpc|cpu", help="Whose rules apply.")] = "cuda",
    margin: Annotated[int | None, typer.Option(min=0, metavar="MIB", help="MiB that stay free on each GPU.")] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="NAME", help="As if llama-quantize had made this one of it: Q3_K_M and so on.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Context by cache type, and slots by context.")] = False,
    quantizations: Annotated[
        bool, typer.Option("--quantizations", help="Compare the quantizations of the model.")
    ] = False,
    profile: ProfileOption = None,
    json: JsonFlag = False,
) -> ExitCode:
    """Say whether a model fits, before it is downloaded: what it takes, where, and the nearest ways out.

    \b
    PRECONDITIONS
      None. For a model that is not here, its registry must be reachable.
    \b
    SIDE EFFECTS
      None. Of a model in a registry only the header is read.
    \b
    EXIT CODES
      0 all of it fits on the GPUs (with --gpu none: in host memory)
      1 the header is damaged, or the registry cannot be reached
      2 the command line is wrong
      4 no such model or file
      5 it does not fit, or only in part, or that is not known
    \b
    EXAMPLE
      llmctl fit llama3.3:70b --gpu 24GiB --context 4096
    """
    env: Env = ctx.obj
    one_of("--kv-cache", kv_cache, CACHES)
    one_of("--flash-attention", flash_attention, FLASH)
    one_of("--backend", backend, BACKENDS)
    one_of("--quantization", quantization, tuple(MIXTURES))
    given = {
        "--context": context,
        "--parallel": parallel,
        "--kv-cache": kv_cache,
        "--batch": batch,
        "--flash-attention": flash_attention,
        "--gpu": gpu,
        "--backend": None if backend == "cuda" else backend,
        "--margin": margin,
        "--quantization": quantization,
        "--profile": profile,
    }
    options = {name: shlex.quote(str(value)) for name, value in given.items() if value is not None}
    words = "llmctl fit" if model is None else f"llmctl fit {shlex.quote(model)}"
    wish = workflow.Wish(
        context, parallel, kv_cache, batch, flash_attention, backend, None if margin is None else margin * MIB
    )
    chosen = env.profile(profile) if profile or model is None else active_profile(env)
    machine = machine_for(env, gpu, backend)
    out = Output(env, json)
    if model is None:
        assert chosen is not None
        every = [(workflow.find_spec(spec, store(env, chosen), env.environ), spec) for spec in chosen.resident]
        result = workflow.together(every, wish, chosen, machine, Typed(words, options))
        out.show(result, together_lines)
        return ExitCode.OK if result.verdict == "full" else ExitCode.NO
    source = workflow.find(model, store(env, chosen), env.environ)
    asked = workflow.ask(wish, chosen, machine)
    found = workflow.judge(
        source,
        asked,
        machine,
        Typed(words, options),
        quantization=quantization,
        table=table,
        quantizations=quantizations,
    )
    out.show(found, fit_lines)
    return ExitCode.OK if found.verdict == "full" else ExitCode.NO


def one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{option} {value}: it is one of {', '.join(allowed)}", "llmctl fit --help")


def active_profile(env: Env) -> Profile | None:
    """The profile that the last `up` made true, or LLMCTL_PROFILE. Without either, Ollama's defaults hold."""
    if env.environ.get("LLMCTL_PROFILE") or env.paths.state_file.exists():
        return env.profile(None)
    return None


def store(env: Env, profile: Profile | None) -> Path | None:
    """Where models lie that are here already."""
    state = env.state if env.paths.state_file.exists() else None
    if state is not None and state.store:
        return Path(state.store)
    if profile is not None:
        return env.server.store(profile)
    from llmctl.server import default_store

    return default_store(env.environ, env.paths.models)


def machine_for(env: Env, gpu: str | None, backend: str) -> workflow.Machine:
    """The GPUs of the command line, or those that are here."""
    state = env.state if env.paths.state_file.exists() else None
    version = state.engine_version if state else None
    here = workflow.this_machine(backend, env.paths.state, version, look=gpu is None)
    if gpu is None:
        return here
    return workflow.Machine(workflow.parse_cards(gpu, backend), here.host, version)
