"""push: the real engine uploads to a real registry, and the registry is asked what it has now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.model import ModelRef
from llmctl.errors import ExitCode
from llmctl.system import registry as asked
from tests.conftest import StartOllama
from tests.library.test_prune import waits_for_lock
from tests.parts.registry import RealRegistry
from tests.registry_server import Registry, serving
from tests.transfer.conftest import NAME, Box, NewBox, fill, tiny

real = pytest.mark.real("ollama", "registry")


@pytest.fixture
def served(new_box: NewBox, ollama_server: StartOllama) -> Box:
    """A machine with a running server whose store has the tiny model, pinned."""
    box = new_box("served")
    box.use(ollama_server(models=box.store.path).port)
    box.pin(tiny())
    return box


def names(box: Box) -> set[str]:
    return {str(name) for name in box.store.names()}


@real
def test_what_is_pushed_is_what_is_pinned_and_another_machine_pulls_it(
    served: Box, new_box: NewBox, real_registry: RealRegistry, ollama_server: StartOllama
) -> None:
    target, before = real_registry.name("tiny:1"), names(served)
    done = served("push", NAME, target, "--json")
    assert done.code == 0, done.err
    assert (done.json["manifest_digest"], done.json["changed"]) == (tiny().digest, True)
    assert asked.manifest(ModelRef.parse(target)).digest == tiny().digest
    # The copy that the engine pushed from is gone, and nothing of the model's own.
    assert names(served) == before
    again = served("push", NAME, target, "--json")
    assert again.json["changed"] is False

    there = new_box("there")
    there.use(ollama_server(models=there.store.path).port)
    pulled = there("pull", target, "--yes", "--json")
    assert pulled.code == 0, pulled.err
    assert pulled.json["manifest_digest"] == tiny().digest


@real
def test_a_registry_of_this_machine_that_speaks_tls_is_pushed_to_over_tls(
    new_box: NewBox, https_registry: RealRegistry, ollama_server: StartOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in https_registry.environ.items():
        monkeypatch.setenv(name, value)
    box = new_box("served")
    box.use(ollama_server(https_registry.environ, models=box.store.path).port)
    box.pin(tiny())
    target = https_registry.name("tiny:1")
    done = box("push", NAME, target, "--json")
    assert done.code == 0, done.err
    assert asked.manifest(ModelRef.parse(target)).digest == tiny().digest


@real
def test_it_waits_for_another_llmctl_that_changes_the_store(served: Box, real_registry: RealRegistry) -> None:
    target, before, ran = real_registry.name("tiny:1"), names(served), []
    thread = threading.Thread(target=lambda: ran.append(served("push", NAME, target)))
    with served.store.changing(lambda: None):
        thread.start()
        deadline = time.monotonic() + 20
        while not waits_for_lock() and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert waits_for_lock()
        assert names(served) == before
    thread.join()
    assert ran[0].code == 0, ran[0].err
    assert "another llmctl" in ran[0].err


@real
def test_another_model_under_the_name_is_asked_about_or_refused(served: Box, real_registry: RealRegistry) -> None:
    target = real_registry.name("tiny:1")
    served.pin(tiny(b"other"), "other:q4_K_M")
    assert served("push", "other:q4_K_M", target).code == 0
    there_already = served("push", NAME, target, "--json")
    assert (there_already.code, there_already.error["code"]) == (ExitCode.USAGE, "consent_needed")
    assert served("push", NAME, target, "--yes").code == 0
    assert asked.manifest(ModelRef.parse(target)).digest == tiny().digest

    second = real_registry.name("tiny:2")
    mine = tiny(b"mine")
    fill(served.store, mine, second)
    refused = served("push", NAME, second, "--json")
    assert (refused.code, refused.error["code"]) == (ExitCode.NO, "name_taken")
    assert served.store.manifest(ModelRef.parse(second)) == mine.manifest


@real
def test_a_name_that_the_server_had_before_stays(served: Box, real_registry: RealRegistry) -> None:
    target = real_registry.name("tiny:1")
    fill(served.store, tiny(), target)
    assert served("push", NAME, target).code == 0
    assert target in names(served)


@real
def test_a_model_that_is_not_as_pinned_is_not_pushed(served: Box, real_registry: RealRegistry) -> None:
    pin = served.lock.pin(NAME)
    assert pin is not None
    fill(served.store, tiny(b"other"), pin.alias)
    done = served("push", NAME, real_registry.name("tiny:1"), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NO, "drift")
    assert (done.json["pinned_digest"], done.json["found_digest"]) == (tiny().digest, tiny(b"other").digest)
    assert served("push", "qwen3:8b", real_registry.name("tiny:1")).code == ExitCode.NOT_FOUND


@pytest.fixture
def small_registry(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "registry") as running:
        yield running


@pytest.mark.real("ollama")
@pytest.mark.parametrize(
    ("fault", "code"), [("login", "registry_login"), ("page", None), ("busy", "registry_busy"), ("broken", None)]
)
def test_a_registry_that_refuses(served: Box, small_registry: Registry, fault: Any, code: str | None) -> None:
    small_registry.fault = fault
    before = names(served)
    done = served("push", NAME, small_registry.name("tiny:1"), "--json")
    assert done.code == ExitCode.FAILED, done.err
    assert code is None or done.error["code"] == code
    if fault == "login":
        assert "export" in done.error["hint"]
        assert "oras" in done.error["hint"]
    assert names(served) == before


@pytest.mark.real("ollama")
def test_a_registry_that_takes_nothing_leaves_no_copy(served: Box, small_registry: Registry) -> None:
    """It says that the name is free, and then knows no uploads."""
    before = names(served)
    done = served("push", NAME, small_registry.name("tiny:1"), "--json")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "push_failed")
    assert small_registry.host in done.error["hint"]
    assert names(served) == before


@pytest.mark.real("ollama")
def test_nobody_there_and_no_registry_named(served: Box, free_port: Callable[[], int]) -> None:
    done = served("push", NAME, f"127.0.0.1:{free_port()}/library/tiny:1", "--json")
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "registry_unreachable")
    assert served("push", NAME, "tiny:1").code == ExitCode.USAGE


def test_without_a_server_the_verb_that_starts_it_is_named(here: Box) -> None:
    here.pin(tiny())
    done = here("push", NAME, "127.0.0.1:5000/library/tiny:1")
    assert done.code == ExitCode.UNREACHABLE
    assert "llmctl up" in done.err
