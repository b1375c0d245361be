"""The lock as data: it keeps everything, in one order, and refuses what it did not write."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.pin import EnginePin, Layer, Lock, LockError, Pin

WEIGHTS = Layer("application/vnd.ollama.image.model", "sha256:" + "a" * 64, 1000)
CONFIG = Layer("application/vnd.docker.container.image.v1+json", "sha256:" + "b" * 64, 10)
PIN = Pin(
    name="qwen3:8b-q4_K_M",
    served="qwen3:8b-q4_K_M",
    source="registry",
    registry="registry.ollama.ai",
    manifest_digest="sha256:" + "c" * 64,
    config=CONFIG,
    layers=(WEIGHTS,),
    weights_digest=WEIGHTS.digest,
    quantization="Q4_K_M",
    file_type=15,
    parameters=8_190_735_360,
    alias="llmctl/qwen3_-8b-q4__K__M:cccccccccccc",
    engine="0.34.0",
    pinned_at="2026-11-23T01:00:00+00:00",
    from_="https://registry.ollama.ai/v2/library/qwen3/manifests/8b-q4_K_M",
)


def test_a_lock_comes_back_as_it_was_written() -> None:
    lock = Lock((PIN, replace(PIN, name="z", config=None, registry=None, file_type=None, parameters=None)))
    assert Lock.from_dict(lock.to_dict()) == lock
    with_engine = replace(lock, engine=EnginePin("0.34.0", "d" * 64))
    assert Lock.from_dict(with_engine.to_dict()) == with_engine


def test_the_order_does_not_depend_on_the_order_of_pinning() -> None:
    other = replace(PIN, name="gemma3:4b")
    assert Lock().with_pin(PIN).with_pin(other) == Lock().with_pin(other).with_pin(PIN)
    assert [pin["name"] for pin in Lock((PIN, other)).to_dict()["models"]] == ["gemma3:4b", PIN.name]


def test_pinning_again_replaces_and_unpinning_removes() -> None:
    moved = replace(PIN, engine="0.35.0")
    assert Lock().with_pin(PIN).with_pin(moved).pin(PIN.name) == moved
    assert Lock().with_pin(PIN).without(PIN.name) == Lock()


def test_the_size_is_that_of_all_blobs() -> None:
    assert PIN.size_bytes == 1010


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema",), 2, "`schema` is 2"),
        (("models",), "x", "`models`"),
        (("models", 0), None, "a pin"),
        (("models", 0, "manifest_digest"), "sha256:1", "`manifest_digest`"),
        (("models", 0, "weights_digest"), None, "`weights_digest`"),
        (("models", 0, "source"), "web", "registry, starter, file"),
        (("models", 0, "layers"), None, "`layers`"),
        (("models", 0, "layers", 0, "size_bytes"), -1, "`size_bytes`"),
        (("models", 0, "layers", 0, "digest"), "../../etc", "`digest`"),
        (("models", 0, "alias"), 7, "`alias`"),
        (("models", 0, "file_type"), "15", "`file_type`"),
    ],
)
def test_a_lock_that_was_edited_into_nonsense_is_refused(path: tuple[Any, ...], value: object, said: str) -> None:
    document = copy.deepcopy(Lock((PIN,)).to_dict())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(LockError, match=said):
        Lock.from_dict(document)


def test_a_model_twice_and_no_mapping_are_refused() -> None:
    document = Lock((PIN,)).to_dict()
    document["models"] *= 2
    with pytest.raises(LockError, match="twice"):
        Lock.from_dict(document)
    with pytest.raises(LockError, match="mapping"):
        Lock.from_dict([])
