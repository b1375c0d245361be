"""With --deep: a model that is loaded is asked for a few tokens."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.client import runner
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.deep import DeepFacts
from llmctl.core.checks.model_gone import is_there
from llmctl.core.serving import argument
from llmctl.errors import LlmctlError
from llmctl.workflows.gather.at_work import AtWork

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.checks.facts.models import ResidentFacts
    from llmctl.workflows.gather import Given

TOKENS = 32
# A model that says nothing for so long says nothing.
SILENCE_SECONDS = 60.0


def gather(given: Given) -> DeepFacts:
    """What a few tokens tell; nothing where no model could be asked."""
    try:
        loaded = [model for model in given.of_models.resident if is_askable(model)]
    except (NotGathered, LlmctlError):
        return DeepFacts()
    if not loaded or is_busy(loaded[0]):
        return DeepFacts()
    client = given.client(given.of_server.url)
    asked = DeepFacts(asked=loaded[0].name)
    try:
        return answer(client, loaded[0].alias or "", AtWork(given), asked)
    except LlmctlError as error:
        return replace(asked, answer_error=error.message)


def is_askable(model: ResidentFacts) -> bool:
    """Whether a request finds its runner: Ollama loads a model anew whose runner has ended, or that lies there with
    another context than its alias asks for (v0.34.0 server/sched.go:1381-1431)."""
    asked = model.alias is not None and model.alias_state in {None, "there"}
    return asked and is_there(model) and model.loaded is not None and model.loaded.context == model.context


def is_busy(model: ResidentFacts) -> bool:
    """Whether its runner has a request in work: behind that one a probe would wait, and tell nothing."""
    port = argument(model.runner_argv, "--port")
    return port is not None and port.isdigit() and runner.processing(int(port)) is True


def answer(client: Client, alias: str, at_work: AtWork, asked: DeepFacts) -> DeepFacts:
    """Without a load-time option and without a keep_alive: the model is not loaded anew, and its keep-alive, which any
    request begins anew, stays what it was (v0.34.0 server/sched.go:483)."""
    request = {"model": alias, "raw": True, "options": {"num_predict": TOKENS}}
    began, found = time.monotonic(), asked
    for number, chunk in enumerate(client.generate(request, ["1, 2, 3,"], silence_seconds=SILENCE_SECONDS)):
        if number == 0:
            found = replace(found, answer_seconds=time.monotonic() - began)
            at_work.began()
        elif number == TOKENS // 4:
            at_work.look()
        usage = chunk.usage
        if usage is not None and usage.completion_tokens > 0 and usage.completion_seconds > 0:
            found = replace(
                found,
                tokens_per_second=usage.completion_tokens / usage.completion_seconds,
                server_share=at_work.server_share(usage.completion_seconds),
            )
    return replace(found, cards=at_work.cards)
