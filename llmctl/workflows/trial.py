"""An engine on trial: started beside the one that serves, on another port, with the same settings and models."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core import serving
from llmctl.core.placement import parse_buffers
from llmctl.core.progress import Step
from llmctl.core.upgrade import Answer, compare, middle, slower
from llmctl.errors import EngineError, LlmctlError, ServerUnreachable
from llmctl.residency import Host, Wanted
from llmctl.server import START_SECONDS, answering
from llmctl.system import child, files, process
from llmctl.system.log_file import tail as last_lines
from llmctl.workflows import unproved
from llmctl.workflows.status import digests_of

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.engine import Engine
    from llmctl.core.placement import Require
    from llmctl.core.profile import Profile
    from llmctl.core.server_state import ActiveModel
    from llmctl.core.token import Token
    from llmctl.server import Running, Server
    from llmctl.workflows.up import Services

LOG = "trial.log"
LOG_BYTES = 4 << 20
POLL_SECONDS = 0.05

# Text that any language model can continue, whatever it was tuned for: no template is applied to it.
PROMPTS = (
    "The capital of France is",
    "1, 2, 3, 4, 5, 6,",
    "def fibonacci(n):\n",
    "Water boils at",
    # The end of a story is open: many words are nearly as good, so that a small fault shows soonest here.
    "Once upon a time",
)
ANSWER_TOKENS = 16
RIVALS = 5
SPEED_PROMPT = "Once upon a time"
SPEED_TOKENS = 24
SPEED_RUNS = 5
# The likeliest token always.
SAMPLING = {"temperature": 0, "seed": 1}
# Between two tokens; the slowest model that anybody waits for writes one in some seconds.
SILENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Measured:
    """What an engine says and how fast. `problem`: it could not be asked, in its words."""

    answers: tuple[Answer, ...] = ()
    tokens_per_second: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ModelCompared:
    """One model on the old and the new engine. `equal_tokens` of `tokens` were written alike before a first
    difference; `difference` is the mean difference of their log probabilities. None where it was not asked."""

    name: str
    old_place: str
    new_place: str | None = None
    tokens: int | None = None
    equal_tokens: int | None = None
    difference: float | None = None
    old_tokens_per_second: float | None = None
    new_tokens_per_second: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """An engine that answers on a port of its own. `log` is what it wrote."""

    base_url: str
    version: str
    pid: int
    log: Path


@contextmanager
def trying(
    engine: Engine, profile: Profile, running: Running, server: Server, inherited: Mapping[str, str]
) -> Iterator[Trial]:
    """Run `engine` on a free port with the models of `running`; it is ended afterwards, with all its runners.

    Raises EngineError when it ends by itself, ServerUnreachable when it does not answer.
    """
    unproved.end_trial(server)
    port = process.free_port(profile.server.host)
    address = f"[{profile.server.host}]:{port}" if ":" in profile.server.host else f"{profile.server.host}:{port}"
    files.make_folder(server.paths.logs)
    log = server.paths.logs / LOG
    who = store_owner(Path(running.store or "/"))
    with tempfile.TemporaryDirectory(prefix="llmctl-trial-") as home:
        if who is not None:
            os.chown(home, who.uid, who.gid)
        environ = serving.server_environment(
            profile,
            inherited,
            address=address,
            store=str(running.store),
            home=home,
            owner=unproved.trial_marker(server),
        )
        # The store belongs to the other server: nothing in it is cleaned up from here.
        environ["OLLAMA_NOPRUNE"] = "1"
        started = child.start_bound([str(engine.executable), "serve"], environ, who=who, log=log)
        try:
            url = f"http://{address}"
            yield Trial(url, wait(url, started.pid, log), started.pid, log)
        finally:
            unproved.end_trial(server)
            started.wait()


def store_owner(store: Path) -> child.Account | None:
    """Whom the trial runs as: under root never as root, where the models belong to a user of their own."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError):
        uid = store.stat().st_uid
        # The groups that may use a GPU, as the unit of the service has them.
        return child.account(uid, more_groups=("video", "render")) if uid else None
    return None


def wait(url: str, pid: int, log: Path) -> str:
    """The version of the server at `url`, once it answers."""
    from llmctl.client import Client

    client = Client(url, answer_seconds=2.0)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.read(pid) is None:
            last = (last_lines(log, 2000).strip().splitlines() or ["no output"])[-1]
            raise EngineError(f"it ended as it started: {last[:300]}")
        with suppress(ServerUnreachable):
            if version := answering(client):
                return version
        time.sleep(POLL_SECONDS)
    raise ServerUnreachable(f"it did not answer within {START_SECONDS:.0f} s")


def measure(client: Client, model: str) -> Measured:
    """Ask the loaded model. A model that writes no text, or an engine that fails, is a `problem`."""
    try:
        answers = tuple(Answer(prompt, written(client, model, prompt)) for prompt in PROMPTS)
        speeds = [speed(client, model) for _ in range(SPEED_RUNS)]
    except LlmctlError as error:
        return Measured(problem=error.message)
    return Measured(answers, middle([one for one in speeds if one is not None]))


def written(client: Client, model: str, prompt: str) -> tuple[Token, ...]:
    """How the model continues a text, token by token, with what each might have been instead."""
    fields = {
        "model": model,
        "raw": True,
        "logprobs": True,
        "top_logprobs": RIVALS,
        "options": {**SAMPLING, "num_predict": ANSWER_TOKENS},
    }
    chunks = client.generate(fields, [prompt], silence_seconds=SILENCE_SECONDS)
    return tuple(token for chunk in chunks for token in chunk.logprobs)


def speed(client: Client, model: str) -> float | None:
    """Tokens per second of one short answer, by the engine's own clock."""
    fields = {"model": model, "raw": True, "options": {**SAMPLING, "num_predict": SPEED_TOKENS}}
    *_, last = client.generate(fields, [SPEED_PROMPT], silence_seconds=SILENCE_SECONDS)
    usage = last.usage
    return usage.completion_tokens / usage.completion_seconds if usage and usage.completion_seconds else None


def place_and_ask(services: Services, started: Trial, model: ActiveModel, require: Require) -> tuple[str, Measured]:
    """Load a model on trial, prove it as `up` does, and ask it; where it lies, and what it says.

    What cannot be proved, or lies elsewhere than before, is not asked: the `problem` says why.
    """
    client, residency = services.client(started.base_url), services.residency
    wanted = Wanted(digests_of(model), model.weights_digest, model.context, require)
    gained = residency.load(client, model.alias, wanted.require, owned=True)
    log = last_lines(started.log, LOG_BYTES)
    seen = residency.prove(
        client.ps(), wanted, Host(True, started.pid), lambda _: parse_buffers(log, model.weights_digest), gained
    )
    place = seen.proof.place
    if seen.proof.verdict != "proved" or place != model.place:
        words = "; ".join(seen.proof.reasons) or f"it lies elsewhere: {place}, with the old engine {model.place}"
        return place, Measured(problem=words)
    asked = measure(client, model.alias)
    client.unload(model.alias)
    return place, asked


def spoken(step: str, title: str, engine: Engine, seen: Measured) -> Step:
    """What a checklist says of an engine that was asked."""
    speed = seen.tokens_per_second
    words = seen.problem or (f"{speed:.1f} tokens/s" if speed else "no speed")
    return Step(step, title, "failed" if seen.problem else "done", f"{engine.name}: {words}")


def judged(model: ActiveModel, place: str, old: Measured, new: Measured, margin_percent: float) -> ModelCompared:
    """The two engines beside each other. What the old one could not be asked, the new one is not asked either."""
    if new.problem is not None and (old.problem is None or place != model.place):
        return ModelCompared(model.name, model.place, place, reasons=(new.problem,))
    if old.problem is not None:
        return ModelCompared(model.name, model.place, place)
    likeness = compare(old.answers, new.answers)
    slow = slower(old.tokens_per_second, new.tokens_per_second, margin_percent)
    return ModelCompared(
        name=model.name,
        old_place=model.place,
        new_place=place,
        tokens=likeness.tokens,
        equal_tokens=likeness.equal_tokens,
        difference=likeness.difference,
        old_tokens_per_second=old.tokens_per_second,
        new_tokens_per_second=new.tokens_per_second,
        reasons=(*likeness.reasons, *([slow] if slow else [])),
    )
