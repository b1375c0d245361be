"""What --deep asks: every blob that a pin reaches is hashed, and a model that is loaded is asked for a few tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmctl.client import runner
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.progress import Step
from llmctl.core.serving import argument
from llmctl.errors import LlmctlError
from llmctl.library import verify
from llmctl.workflows import store

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.checks.facts.models import ResidentFacts
    from llmctl.library.blobs import BadBlob
    from llmctl.workflows.gather import Given

TOKENS = 16
# A model that says nothing for so long says nothing.
SILENCE_SECONDS = 60.0


def gather(given: Given) -> DeepFacts:
    """The model first: while blobs are read, it would wait for the disk with them."""
    asked, seconds, speed, error = probe(given)
    bad, hashed_bytes = hashed(given)
    return DeepFacts(bad, hashed_bytes, seconds, error, speed, asked)


def probe(given: Given) -> tuple[str | None, float | None, float | None, str | None]:
    """The model that was asked, seconds until its first token, tokens a second, and the error where there is one."""
    try:
        loaded = [model for model in given.of_models.resident if model.loaded is not None and model.alias]
    except (NotGathered, LlmctlError):
        return None, None, None, None
    if not loaded or is_busy(loaded[0]):
        return None, None, None, None
    client = given.client(given.of_server.url)
    try:
        return (loaded[0].name, *answer(client, loaded[0].alias or ""), None)
    except LlmctlError as error:
        return loaded[0].name, None, None, error.message


def is_busy(model: ResidentFacts) -> bool:
    """Whether its runner has a request in work: behind that one a probe would wait, and tell nothing."""
    port = argument(model.runner_argv, "--port")
    return port is not None and port.isdigit() and runner.processing(int(port)) is True


def answer(client: Client, alias: str) -> tuple[float | None, float | None]:
    """Nothing here would load the model anew or change how long it stays."""
    request = {"model": alias, "raw": True, "options": {"num_predict": TOKENS}}
    began = time.monotonic()
    first = speed = None
    for chunk in client.generate(request, ["1, 2, 3,"], silence_seconds=SILENCE_SECONDS):
        first = time.monotonic() - began if first is None else first
        if chunk.usage is not None and chunk.usage.completion_seconds > 0:
            speed = chunk.usage.completion_tokens / chunk.usage.completion_seconds
    return first, speed


def hashed(given: Given) -> tuple[tuple[tuple[str, str], ...], int]:
    """The bad blobs, each with what is wrong, and the bytes that were read. What is missing is another check's."""
    lock = given.of_profile.lock
    if lock is None or not lock.models:
        return (), 0
    place = store.place(given.server, given.profile)
    found = verify.verify(
        place.store, lock.models, given.server.paths.state, client=None, since_seconds=None, progress=unheard
    )
    bad = [blob for blob in found.bad_blobs if blob.problem in {"size", "content", "unreadable", "changing"}]
    return tuple((", ".join(blob.models), words(blob)) for blob in bad), found.hashed_bytes


def words(blob: BadBlob) -> str:
    reason = f": {blob.reason}" if blob.reason else ""
    return f"{blob.path} is not what its name says ({blob.problem}){reason}"


def unheard(step: Step) -> None:
    """Doctor itself says that it hashes."""
