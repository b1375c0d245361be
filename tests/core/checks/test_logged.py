"""A line that is not in the log says something only where the log reaches back to when it would have been written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmctl.core.checks.catalogue import CHECKS
from llmctl.core.checks.examine import Outcome, examine
from llmctl.core.checks.facts import Facts
from llmctl.core.checks.facts.engine import EngineFacts
from llmctl.core.checks.facts.gpu import Card, GpuFacts
from llmctl.core.checks.facts.log import Load, LogFacts
from llmctl.core.checks.facts.models import LoadedFacts, ModelsFacts, ResidentFacts
from llmctl.core.checks.facts.profile import ProfileFacts
from llmctl.core.checks.facts.server import ServerFacts
from llmctl.core.checks.facts.shell import ShellFacts
from llmctl.core.placement import Proof, Witnesses
from llmctl.core.profile import GpuSpec, ModelSpec, Profile, Require

GIB = 1 << 30
NOW = 10_000.0
MINE = "sha256:" + "ab" * 32
CARD = Card(0, "NVIDIA GeForce RTX 3090", 24 * GIB, 23 * GIB)
WHOLE = LogFacts("ollama.service", 10, True, config={}, gpus=("CUDA0 RTX 3090",), now_seconds=NOW)
# Its start has gone, and the last hour is there; then not even that.
HOUR = replace(WHOLE, since_start=False, config=None, gpus=None, complete_from=NOW - 3600)
LITTLE = replace(HOUR, complete_from=NOW - 60)
# Of a long one the beginning is read too.
BEGINNING = replace(LITTLE, config={}, gpus=("CUDA0 RTX 3090",))
LOADED_HERE = replace(LITTLE, loads=(Load(MINE, 2048, 1, NOW),))
# It may have been loaded again in what is left out, or at any time.
LOADED_BEFORE = replace(LITTLE, loads=(Load(MINE, 2048, 1, NOW - 600),))
LOADED_ONCE = replace(LITTLE, loads=(Load(MINE, 2048, 1, None),))
NO_TIMES = replace(LOADED_HERE, complete_from=None)

AT_ANY_TIME = (
    *("memory.out-of-memory", "memory.not-recovered", "server.crash-loop"),
    *("clients.reloads", "clients.truncated", "clients.keep-alive-string", "clients.embeddings"),
)
GPUS_AT_START = ("gpu.driver-too-old", "gpu.engine-sees-none")
# Of a server whose environment is another user's.
AT_START = (*GPUS_AT_START, "speed.debug-logging")


def facts(log: LogFacts | None, *, context: int = 4096, proved: bool = False, require: Require = "full") -> Facts:
    """A model in host memory beside a card, loaded with a context of 4,096 tokens."""
    loaded = LoadedFacts("m", "d", context, GIB, GIB, None, MINE)
    proof = Proof("proved", "gpu") if proved else Proof("refuted", "cpu", ("the model lies in host memory",))
    one = ResidentFacts(
        "m", "m", frozenset({"d"}), MINE, 4096, loaded, proof, Witnesses(None), None, 8, ("llama-server",)
    )
    areas: dict[str, object] = {
        "profile": ProfileFacts(Profile("mine", (ModelSpec("m"),), gpu=GpuSpec(require))),
        "server": ServerFacts("http://127.0.0.1:11434", "profile", "answers", version="0.34.0", owner="foreign", pid=7),
        "models": ModelsFacts(require, (one,), (loaded,)),
        "gpu": GpuFacts("fine", driver="570.86.10", cards=(CARD,), xids=(), engine_devices=("CUDA0",)),
        "shell": ShellFacts("me", 1000, {}, None, False),
        "engine": EngineFacts("/opt/ollama", "0.34.0", None, "/opt/llama-server", None, ()),
    }
    return Facts({**areas, **({"log": log} if log else {})}, {} if log else {"log": "the log cannot be read"})


def outcomes(found: Facts, names: tuple[str, ...]) -> dict[str, Outcome]:
    """Without what they stand after."""
    checks = [replace(check, after=()) for check in CHECKS if check.id in names]
    return {outcome.check.id: outcome for outcome in examine(checks, found)}


def states(found: Facts, names: tuple[str, ...]) -> set[str]:
    return {outcome.state for outcome in outcomes(found, names).values()}


@pytest.mark.parametrize(
    ("log", "any_time", "at_start"),
    [
        (WHOLE, "ok", "ok"),
        (HOUR, "ok", "unknown"),
        (LITTLE, "unknown", "unknown"),
        (BEGINNING, "unknown", "ok"),
        (None, "unknown", "unknown"),
    ],
)
def test_what_is_not_in_the_log(log: LogFacts | None, any_time: str, at_start: str) -> None:
    assert states(facts(log), AT_ANY_TIME) == {any_time}
    assert states(facts(log), AT_START) == {at_start}


@pytest.mark.parametrize("log", [HOUR, LITTLE, None])
def test_what_the_start_said_of_gpus_is_no_matter_where_none_is_missed(log: LogFacts | None) -> None:
    assert states(facts(log, proved=True), GPUS_AT_START) == {"ok"}
    assert states(facts(log, require="none"), GPUS_AT_START) == {"ok"}


@pytest.mark.parametrize(
    ("log", "state"),
    [
        (WHOLE, "ok"),
        (HOUR, "unknown"),
        (LITTLE, "unknown"),
        (LOADED_HERE, "ok"),
        (LOADED_BEFORE, "unknown"),
        (LOADED_ONCE, "unknown"),
        (NO_TIMES, "unknown"),
        (None, "unknown"),
    ],
)
def test_why_a_context_is_smaller_is_said_at_the_load(log: LogFacts | None, state: str) -> None:
    assert states(facts(log, context=2048), ("server.context",)) == {state}
    assert states(facts(log), ("server.context",)) == {"ok"}


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({"CUDA_VISIBLE_DEVICES": "7"}, "found"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "ok"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "ok"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
def test_the_log_tells_of_an_environment_that_is_another_users(config: dict[str, str] | None, state: str) -> None:
    found = facts(replace(WHOLE, config=config))
    gpu = replace(found.gpu, visible_of="the server (pid 7)", visible_known=False)
    judged = outcomes(Facts({**found.areas, "gpu": gpu}), ("gpu.visible-devices",))["gpu.visible-devices"]
    assert judged.state == state
    if judged.findings:
        assert "CUDA_VISIBLE_DEVICES=7 of the server (pid 7)" in judged.findings[0].observed
