"""ask: one prompt from the shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.commands.options import JsonFlag, ProfileOption, YesFlag, complete_models
from llmctl.errors import AnswerCut, ExitCode
from llmctl.output import Output
from llmctl.output.answer import MarkdownBlocks, Silence, Tokens, statistics
from llmctl.workflows.ask import Answer, learn_speed, prompt_pieces, utf8
from llmctl.workflows.ask import ask as run_ask
from llmctl.workflows.pause import refuse_question
from llmctl.workflows.target import target

if TYPE_CHECKING:
    from llmctl.env import Env

CUTS = {
    "length": "the answer was cut: the engine stopped at its own limit",
    "context_shift": "prompt and answer are longer than the context, so the oldest tokens were dropped",
}


def ask(
    ctx: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The question. stdin is appended.")] = None,
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", help="Append a file; repeats.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="A system prompt.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model by its plain name.", autocompletion=complete_models),
    ] = None,
    schema: Annotated[Path | None, typer.Option(help="A JSON Schema; the answer is JSON that fits it.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Make sampling repeatable.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 always takes the likeliest token.")] = None,
    think: Annotated[bool | None, typer.Option("--think/--no-think", help="For models that reason.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Give up after so many seconds.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print figures on stderr.")] = False,
    up: Annotated[bool, typer.Option("--up", help="Start the server first when it is down.")] = False,
    profile: ProfileOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Ask the resident model one question.

    The answer streams to stdout as it is written.

    \b
    PRECONDITIONS
      The server is up (llmctl up), or --up is given.
    \b
    SIDE EFFECTS
      None. Nothing that could reload the model is ever sent.
    \b
    EXIT CODES
      0 answered, or stopped at --max-tokens
      1 the stream ended early, or the time was up
      3 the server is not running, or the GPU is given to a command (llmctl yield)
      4 no such model or file
      5 the answer does not fit --schema
      6 the prompt is longer than the context, or the answer was cut by it
    \b
    EXAMPLE
      llmctl ask "The capital of France is"
      git diff | llmctl ask "Write a commit message for this change."
    """
    env: Env = ctx.obj
    out = Output(env, json)
    if up:
        from llmctl.commands.lifecycle import bring_up

        bring_up(env, out, profile, yes)
    refuse_question(env.paths.runtime)
    where = target(env.state_of(profile), model)
    stdin = None if env.stdin.isatty() else env.stdin.buffer
    fields = request(where.model, system, schema, think, options(max_tokens, seed, temperature))
    view = view_for(out, schema)
    try:
        answer = run_ask(
            env.client(where.base_url),
            fields,
            prompt_pieces(prompt, file or [], stdin),
            digest=where.digest,
            timeout_seconds=timeout,
            on_chunk=view.chunk,
        )
    finally:
        view.end()
    state = env.state_of(profile)
    learn_speed(env.paths.state, state.model(where.model) if state else None, answer)
    return finish(out, answer, schema, fields, stats)


def options(max_tokens: int | None, seed: int | None, temperature: float | None) -> dict[str, Any]:
    """Sampling options only. num_ctx, num_gpu and their like are load-time options and have no flag."""
    given = {"num_predict": max_tokens, "seed": seed, "temperature": temperature}
    return {key: value for key, value in given.items() if value is not None}


def request(
    model: str, system: str | None, schema: Path | None, think: bool | None, sampling: dict[str, Any]
) -> dict[str, Any]:
    given = {
        "model": model,
        "system": utf8(system, "--system") if system else None,
        "format": read(schema) if schema else None,
        "think": think,
        "options": sampling or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def read(schema: Path) -> dict[str, Any]:
    from llmctl.system.json_schema import read_schema

    return read_schema(schema)


def view_for(out: Output, schema: Path | None) -> Tokens:
    if out.json or schema:
        return Silence(out)
    return MarkdownBlocks(out) if out.env.stdout.isatty() else Tokens(out)


def finish(out: Output, answer: Answer, schema: Path | None, fields: dict[str, Any], stats: bool) -> ExitCode:
    if stats:
        out.note(statistics(answer))
    if answer.cut is None and schema:
        from llmctl.system.json_schema import check

        check(answer.response, fields["format"], answer)
    if schema or out.json:
        out.show(answer, text)
    if answer.cut is None:
        return ExitCode.OK
    total = answer.prompt_tokens + answer.completion_tokens
    raise AnswerCut(
        f"{CUTS[answer.cut]} ({total} tokens, context {answer.context_length or 'unknown'})",
        "raise server.context in the profile and run: llmctl up",
    )


def text(answer: Answer, _: int) -> list[str]:
    return [answer.response.rstrip("\n")]
