"""Model check: whatever is done to a store, what is pinned and not reported bad hashes.

Hypothesis draws the steps: pull, update, move a tag, damage a file, repair, verify, rm, prune, a registry that lies,
a foreign pull, and a crash in the middle of a verb. They run against a real Ollama and a registry on loopback. About
a hundred steps by default; for as many runs of twelve as you like, and the shortest way to a failure:

    LLMCTL_TEST_EXAMPLES=500 python -m pytest tests/library/test_model_check.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmctl.core.manifest import parse_manifest
from llmctl.core.pin import Pin
from tests.conftest import StartOllama
from tests.faults.conftest import Box, Ran, sha256
from tests.library.crasher import DIED
from tests.parts import machine
from tests.registry_server import digest_of, serving

GIVEN = os.environ.get("LLMCTL_TEST_EXAMPLES")
EXAMPLES = int(GIVEN or "10")
STEPS = 12
# To find the shortest way to a failure takes minutes.
PHASES = (Phase.generate, Phase.shrink) if GIVEN else (Phase.generate,)
CHECKOUT = Path(__file__).parents[2]
TAGS = st.sampled_from(["a", "b"])
VERSIONS = st.sampled_from(["1", "2", "3"])
# None: not at all, or it ends before.
MOMENTS = st.integers(0, 24)


class Crasher:
    """Runs a command line that dies at a chosen moment; see crasher.py."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.process = subprocess.Popen(
            [*machine.ENDS_WITH_TESTS, sys.executable, "-m", "tests.library.crasher"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, stop_at: int) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"words": words, "environ": self.box.settings, "stop_at": stop_at}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()


def reached(pin: Pin) -> set[str]:
    return {layer.digest for layer in pin.layers} | ({pin.config.digest} if pin.config else set())


class Store(RuleBasedStateMachine):
    """`damaged` is every blob that the steps so far may have made bad, and nothing has mended since."""

    box: Box
    crash: Crasher

    @initialize()
    def empty(self) -> None:
        for folder in (self.box.store, self.box.folder):
            for path in folder.iterdir():
                if path.name != "profile.yaml":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.box.registry.manifests.clear()
        self.box.registry.blob_fault = None
        self.damaged: set[str] = set()
        self.cut: set[Path] = set()
        for tag, version in (("a", "1"), ("b", "2")):
            self.move(tag, version)
            self.pull(tag, update=False)

    # What a registry does

    @rule(tag=TAGS, version=VERSIONS)
    def move(self, tag: str, version: str) -> None:
        self.box.publish(tag, seed=version)

    @rule(liar=st.booleans())
    def turn(self, liar: bool) -> None:
        """From now on every blob has a bit flipped, or none."""
        self.box.registry.blob_fault = "flipped" if liar else None

    def believed(self) -> None:
        """Of several bad blobs Ollama deletes one, and keeps the others as they came."""
        if self.box.registry.blob_fault:
            self.damaged |= set(self.box.registry.blobs)

    # What a person types. One rule of many verbs: hypothesis leaves whole rules out of a run.

    @rule(tag=TAGS, update=st.booleans())
    def pull(self, tag: str, update: bool) -> None:
        self.believed()
        self.typed({0, 1, 5}, *self.words("update" if update else "pull", tag))

    @rule(tag=TAGS, aged=st.booleans())
    def remove_and_prune(self, tag: str, aged: bool) -> None:
        self.typed({0, 4}, *self.words("rm", tag))
        if aged:
            self.age()
        self.typed({0}, "prune", "--yes")

    @precondition(lambda self: self.box.lock.models)
    @rule(liar=st.booleans())
    def repair(self, liar: bool) -> None:
        self.turn(liar)
        done = self.typed({0, 1, 4, 5}, "repair", "--yes")
        if done.code == 0:
            assert self.bad() & self.pinned() == set()
            assert self.box("verify").code == 0
            self.damaged -= self.pinned()

    @rule(verb=st.sampled_from(["pull", "update", "repair", "rm", "prune"]), tag=TAGS, moment=MOMENTS)
    def crash_in_the_middle(self, verb: str, tag: str, moment: int) -> None:
        if verb == "prune":
            self.age()
        elif verb in {"pull", "update"}:
            self.believed()
        pin = self.box.lock.pin(self.box.registry.name(f"m:{tag}"))
        if verb == "rm" and pin is not None:
            # The model goes before its pin: a removal that was cut short is reported, and ends at the next.
            self.damaged |= reached(pin)
        assert self.crash(*self.words(verb, tag), stop_at=moment) in {0, 1, 4, 5, DIED}

    # What others do

    @rule(tag=TAGS)
    def foreign_pull(self, tag: str) -> None:
        self.believed()
        self.box.server.request("POST", "/api/pull", {"model": self.box.registry.name(f"m:{tag}"), "insecure": True})

    @precondition(lambda self: self.blobs())
    @rule(data=st.data(), how=st.sampled_from(["flip", "truncate", "delete", "grow"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        digest = data.draw(st.sampled_from(sorted(self.blobs())))
        path = self.box.blob(digest)
        content = bytearray(path.read_bytes())
        if how == "flip":
            content[len(content) // 2] ^= 1
        changed = {"truncate": content[:-1], "grow": content + b"\0"}.get(how, content)
        path.write_bytes(changed)
        if how == "delete":
            path.unlink()
        self.damaged.add(digest)

    @precondition(lambda self: len(self.blobs()) > 1)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        one, two = data.draw(st.lists(st.sampled_from(sorted(self.blobs())), min_size=2, max_size=2, unique=True))
        first, second = self.box.blob(one).read_bytes(), self.box.blob(two).read_bytes()
        self.box.blob(one).write_bytes(second)
        self.box.blob(two).write_bytes(first)
        self.damaged |= {one, two}

    @precondition(lambda self: self.box.lock.models)
    @rule(data=st.data(), how=st.sampled_from(["cut", "delete"]))
    def damage_manifest(self, data: st.DataObject, how: str) -> None:
        pin = data.draw(st.sampled_from(self.box.lock.models))
        name, _, tag = pin.alias.partition(":")
        path = self.box.store / "manifests" / "registry.ollama.ai" / name / tag
        if not path.exists():
            return
        path.unlink() if how == "delete" else os.truncate(path, path.stat().st_size // 2)
        self.cut.add(path)
        # Ollama itself deletes what no manifest names any more.
        self.damaged |= reached(pin)

    # What must hold

    @invariant()
    def pinned_means_pinned(self) -> None:
        lock = self.box.lock
        pinned = self.pinned()
        bad = self.bad()
        assert bad <= self.damaged, "something bad that nobody damaged"
        assert self.lost(pinned) <= self.damaged, "something pinned is gone that nobody damaged"
        if not lock.models:
            return
        done = self.box("verify", "--json")
        assert done.code in {0, 5}, done.err
        reported = {blob["digest"] for blob in done.json["bad_blobs"]}
        assert reported >= pinned & (bad | self.lost(pinned)), "something pinned is bad and not reported"
        assert reported <= self.damaged, "something is reported that is good"
        assert done.code == (0 if done.json["good"] else 5)
        for pin, model in zip(lock.models, done.json["models"], strict=True):
            if model["good"]:
                name, _, tag = pin.alias.partition(":")
                content = (self.box.store / "manifests" / "registry.ollama.ai" / name / tag).read_bytes()
                assert digest_of(content) == pin.manifest_digest
                assert all(sha256(self.box.blob(digest)) == digest for digest in reached(pin))

    @invariant()
    def nothing_half_done(self) -> None:
        for path in (self.box.store / "manifests").rglob("*"):
            if path.is_file() and path not in self.cut:
                parse_manifest(path.read_bytes())

    # How it is asked

    def typed(self, codes: set[int], *words: str) -> Ran:
        done = self.box(*words)
        assert done.code in codes, f"{words}: {done.code} {done.err}"
        return done

    def words(self, verb: str, tag: str) -> list[str]:
        name = self.box.registry.name(f"m:{tag}")
        if verb in {"repair", "prune"}:
            return [verb, "--yes"]
        return ["pull", name, "--update"] if verb == "update" else [verb, name, *(["--yes"] if verb == "rm" else [])]

    def age(self) -> None:
        """Two hours pass for the store, so that prune does not spare what is young."""
        then = time.time() - 7200
        for path in (*self.box.store.rglob("*"), self.box.store):
            os.utime(path, (then, then))

    def pinned(self) -> set[str]:
        return {digest for pin in self.box.lock.models for digest in reached(pin)}

    def blobs(self) -> set[str]:
        """The blobs that a pin names and that are there."""
        return self.pinned() - self.lost(self.pinned())

    def lost(self, digests: set[str]) -> set[str]:
        return {digest for digest in digests if not self.box.blob(digest).is_file()}

    def bad(self) -> set[str]:
        with suppress(FileNotFoundError):
            return self.box.bad_blobs()
        return set()


@pytest.fixture
def box(ollama_server: StartOllama, tmp_path: Path) -> Iterator[Box]:
    with serving(tmp_path / "registry") as registry:
        yield Box(ollama_server(), registry, tmp_path / "config")


@pytest.fixture
def crasher(box: Box) -> Iterator[Crasher]:
    running = Crasher(box)
    yield running
    running.end()


@pytest.mark.real("ollama")
@pytest.mark.timeout(0)
def test_what_is_pinned_and_not_reported_bad_always_hashes(box: Box, crasher: Crasher) -> None:
    def machine_of_this_test() -> Store:
        store = Store()
        store.box, store.crash = box, crasher
        return store

    run_state_machine_as_test(
        machine_of_this_test,
        settings=settings(
            phases=PHASES,
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
