"""ask: one prompt, one answer, and nothing lost silently on the way."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from llmctl.errors import LlmctlError, NotFound, ServerUnreachable, StreamEnded, UsageError

if TYPE_CHECKING:
    from llmctl.client import Chunk, Client
    from llmctl.core.server_state import ActiveModel

PIECE_BYTES = 1 << 16
# A shorter answer says more about its start than about its speed.
TELLING_TOKENS = 32
# A shorter prompt is read in one batch, whatever the machine.
TELLING_PROMPT = 256


@dataclass(frozen=True)
class Answer:
    """A finished answer. Times in seconds; `ttft_seconds` is from the request to the first token.

    `cut` says why it is not whole: `length` (the engine stopped at its limit, which nobody asked for) or
    `context_shift` (prompt and answer together are longer than the context, so the oldest tokens were
    dropped while it wrote); None when it is.
    """

    model: str
    response: str
    thinking: str
    done_reason: str | None
    cut: str | None
    context_length: int | None
    prompt_tokens: int
    completion_tokens: int
    ttft_seconds: float | None
    load_seconds: float
    prompt_seconds: float
    completion_seconds: float
    total_seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        return self.completion_tokens / self.completion_seconds if self.completion_seconds else None


def ask(
    client: Client,
    fields: dict[str, Any],
    prompt: Iterable[str],
    *,
    digest: str | None,
    timeout_seconds: float | None,
    on_chunk: Callable[[Chunk], None],
) -> Answer:
    """Stream one answer. `fields` names the model; the prompt's pieces are sent as they are read.

    `digest` is the model's manifest, 64 hex digits, where it is known.

    `truncate: false` makes a prompt that does not fit an error instead of a silent cut. Nothing that is a
    load-time option is ever sent (`shift`, `num_ctx`, `keep_alive` …): each can reload the resident model.
    Raises PromptTooLong, StreamEnded, or whatever the client raises.
    """
    started = time.monotonic()
    request = {**fields, "truncate": False}
    text: list[str] = []
    thinking: list[str] = []
    first: float | None = None
    final: Chunk | None = None
    for chunk in timed(client.generate(request, prompt, silence_seconds=timeout_seconds), timeout_seconds):
        if first is None and (chunk.text or chunk.thinking):
            first = time.monotonic() - started
        text.append(chunk.text)
        thinking.append(chunk.thinking)
        on_chunk(chunk)
        final = chunk
    if final is None or final.usage is None:
        raise StreamEnded("the answer stopped before its end", "llmctl logs")
    limit = (fields.get("options") or {}).get("num_predict")
    context = context_of(client, str(fields["model"]), digest)
    return answer(fields, "".join(text), "".join(thinking), final, first, cut(final, limit, context), context)


def timed(chunks: Iterator[Chunk], limit_seconds: float | None) -> Iterator[Chunk]:
    """The chunks, until their time is up: between two of them, or while none comes."""
    deadline = None if limit_seconds is None else time.monotonic() + limit_seconds
    try:
        for chunk in chunks:
            yield chunk
            if deadline is not None and time.monotonic() > deadline and not chunk.done:
                break
        else:
            return
    except ServerUnreachable:
        if deadline is None or time.monotonic() < deadline:
            raise
    raise StreamEnded(f"the answer was not finished after {limit_seconds:g} s", code="timeout")


def answer(
    fields: dict[str, Any],
    text: str,
    thinking: str,
    final: Chunk,
    first: float | None,
    cut: str | None,
    context: int | None,
) -> Answer:
    usage = final.usage
    assert usage is not None
    return Answer(
        model=str(fields["model"]),
        response=text,
        thinking=thinking,
        done_reason=final.done_reason,
        cut=cut,
        context_length=context,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        ttft_seconds=first,
        load_seconds=usage.load_seconds,
        prompt_seconds=usage.prompt_seconds,
        completion_seconds=usage.completion_seconds,
        total_seconds=usage.total_seconds,
    )


def cut(final: Chunk, limit: int | None, context: int | None) -> str | None:
    """Why an answer is not whole, or None.

    The engine says nothing of a context shift: it shows only in the counts (facts: ollama v0.33.0, seen).
    """
    usage = final.usage
    if usage is not None and context is not None and usage.prompt_tokens + usage.completion_tokens > context:
        return "context_shift"
    if final.done_reason == "length" and (limit is None or (usage and usage.completion_tokens < limit)):
        return "length"
    return None


def context_of(client: Client, model: str, digest: str | None) -> int | None:
    """The context length of the runner that answered: found by its digest or name, else the only loaded one.

    The name alone is not enough: of two names for the same weights, /api/ps shows the one that loaded first.
    """
    try:
        loaded = client.ps()
    except LlmctlError:
        return None
    names = {model, f"{model}:latest"}
    chosen = [entry for entry in loaded if entry.digest == digest or entry.name in names] or loaded
    lengths = {entry.context_length for entry in chosen}
    return lengths.pop() if len(lengths) == 1 else None


def learn_speed(state: Path, model: ActiveModel | None, answer: Answer) -> None:
    """Note how fast an answer came, and how long its prompt waited for the first token; `fit` and `doctor` tell it."""
    speed = answer.tokens_per_second if answer.completion_tokens >= TELLING_TOKENS else None
    first = first_token_seconds(answer)
    if model is None or (speed is None and first is None):
        return
    if state.exists() and not os.access(state, os.W_OK):
        # The state of the whole machine is root's and the service's.
        return
    from llmctl.system import learnt

    known = learnt.read(state)
    if speed is not None:
        tokens = answer.prompt_tokens + answer.completion_tokens
        known.add_speed(model.weights_digest, model.place, speed, tokens)
    if first is not None:
        known.add_first_token(model.weights_digest, model.place, answer.prompt_tokens, first)
    learnt.write(state, known)


def first_token_seconds(answer: Answer) -> float | None:
    """From the granted runner to the first token; None for a prompt that says little. Waiting for a runner, or for
    others who ask, is `load_seconds` and no matter of speed."""
    if answer.ttft_seconds is None or answer.prompt_tokens < TELLING_PROMPT:
        return None
    return max(0.0, answer.ttft_seconds - answer.load_seconds)


def prompt_pieces(argument: str | None, paths: Iterable[Path], stdin: BinaryIO | None) -> Iterator[str]:
    """The prompt in pieces of bounded size: the argument, each file, then stdin, a blank line between them.

    Raises UsageError when there is nothing to ask, or when something is not UTF-8.
    """
    pieces = joined(argument, paths, stdin)
    first = next(pieces, None)
    if first is None:
        raise UsageError(
            "there is nothing to ask: give a prompt, a file with -f, or text on stdin", "llmctl ask --help"
        )

    def whole() -> Iterator[str]:
        yield first
        yield from pieces

    return whole()


def joined(argument: str | None, paths: Iterable[Path], stdin: BinaryIO | None) -> Iterator[str]:
    parts = [opened(path) for path in paths]
    if argument:
        parts.insert(0, iter([utf8(argument, "the prompt")]))
    if stdin is not None:
        parts.append(decoded(stdin, "stdin"))
    begun = False
    for part in parts:
        separator = "\n\n" if begun else ""
        for piece in part:
            yield separator + piece
            separator, begun = "", True


def utf8(argument: str, name: str) -> str:
    """An argument as the bytes that the shell gave say it, whatever the locale made of them."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise UsageError(f"{name} is not UTF-8 text") from None


def opened(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            yield from decoded(file, str(path))
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", code="file_not_found") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def decoded(file: BinaryIO, name: str) -> Iterator[str]:
    """UTF-8 text in pieces. Refuses other bytes: what is sent must be what was given."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        while data := file.read(PIECE_BYTES):
            if text := decoder.decode(data):
                yield text
            offset += len(data)
        if text := decoder.decode(b"", final=True):
            yield text
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text, near byte {offset + error.start}") from None
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
