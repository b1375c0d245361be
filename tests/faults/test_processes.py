"""Processes that die, and processes that do the same thing at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import StartOllama
from tests.faults import fault
from tests.faults.conftest import MIB, Box, Model, finished, sha256
from tests.faults.test_store import flip
from tests.parts.ollama import OllamaServer
from tests.registry_server import PIECE_BYTES

pytestmark = pytest.mark.real("ollama")

SEEDS = range(4)
# Half an hour beyond what prune gives a download.
LONG_AGO = 5400


def until(what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Return as soon as `what` holds or the process has ended, whichever is first."""
    deadline = time.monotonic() + 60
    while not what() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def killed(box: Box, *words: str, when: Callable[[], bool]) -> None:
    """Start the verb and kill it with SIGKILL as soon as `when` holds."""
    process = box.start(*words)
    until(when, process)
    process.kill()
    finished(process)


@fault(
    what="`kill -9` of llmctl during a pull",
    how="at a random byte of 4 MiB of weights, four times in a row, then let run",
    happens="each run ends; the last one is exit 0 and asks only for what the ones before did not get",
    left="Ollama's `-partial` in between, the pinned model in the end",
)
def test_killed_pull(box: Box) -> None:
    model = box.publish(size_bytes=4 * MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    sent = box.registry.sent
    for seed in SEEDS:
        goal = sent[model.weights] + random.Random(seed).randrange(MIB)
        killed(box, "pull", model.name, when=lambda goal=goal: sent[model.weights] >= goal)  # type: ignore[misc]
        box.sound()
    done = box("pull", model.name)
    assert done.code == 0, done.err
    # What was on its way when the connection went is asked for again.
    assert sent[model.weights] <= model.size_bytes + len(SEEDS) * 8 * PIECE_BYTES
    assert box.lock.models[0].weights_digest == model.weights
    box.sound()


@fault(
    what="`kill -9` of llmctl at any moment of a pull",
    how="after a random number of requests, six times: before the question, between pull, copy and lock",
    happens="the next pull is exit 0, whatever was done already. Ollama 0.34.0 itself dies of a client that leaves in "
    "the moment when its download begins; then it is exit 3 until a server runs again",
    left="at most the plain name and the alias, never half a lock",
)
def test_killed_anywhere_in_a_pull(box: Box, ollama_server: StartOllama) -> None:
    for seed in range(6):
        model = box.publish(f"t{seed}", seed=str(seed))
        steps = random.Random(seed).randrange(6)
        before = len(box.registry.asked)
        killed(box, "pull", model.name, when=lambda: len(box.registry.asked) >= before + steps)  # noqa: B023
        try:
            pulled_after_all(box, model)
        except AssertionError:
            if not died_of_a_client_that_left(box.server):
                raise
            box.server = ollama_server(models=box.store)
            pulled_after_all(box, model)
    box.sound()


def pulled_after_all(box: Box, model: Model) -> None:
    box.sound()
    done = box("pull", model.name)
    assert done.code == 0, done.err
    assert box.lock.pin(model.name) is not None


def died_of_a_client_that_left(server: OllamaServer) -> bool:
    """Not by llmctl: line 442 calls what line 220 of another goroutine has not set yet (ollama v0.34.0
    server/download.go)."""
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(10)
    return server.process.poll() is not None and "(*blobDownload).release" in server.log


@fault(
    what="`kill -9` of llmctl during a repair",
    how="at a random byte of 4 MiB, four times in a row, then let run",
    happens="`verify` says 5 until the last one, which is exit 0 and asks only for what the ones before did not get",
    left="the bad blob where it was and the bytes that came in `.llmctl/`; in the end the model as it was pinned",
)
def test_killed_repair(box: Box) -> None:
    model = box.pulled(size_bytes=4 * MIB)
    flip(box.blob(model.weights))
    sent = box.registry.sent
    sent.clear()
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    for seed in SEEDS:
        goal = sent[model.weights] + random.Random(seed).randrange(MIB)
        killed(box, "repair", "--yes", when=lambda goal=goal: sent[model.weights] >= goal)  # type: ignore[misc]
        box.sound(bad={model.weights} if sha256(box.blob(model.weights)) != model.weights else set())
    done = box("repair", "--yes")
    assert done.code == 0, done.err
    assert sent[model.weights] <= model.size_bytes + len(SEEDS) * 40 * PIECE_BYTES
    box.sound()


def archive(box: Box, model: str) -> Path:
    path = box.folder / "model.tar"
    done = box("export", model, "-o", str(path))
    assert done.code == 0, done.err
    return path


@pytest.fixture
def elsewhere(box: Box, ollama_server: StartOllama, tmp_path: Path) -> Box:
    """A second machine, which has nothing yet."""
    return Box(ollama_server(), box.registry, tmp_path / "elsewhere")


@fault(
    what="`kill -9` of llmctl during an import",
    how="at a random moment while 64 MiB are copied, four times in a row, then let run",
    happens="nothing is visible until the last one, which is exit 0",
    left="an unfinished file in `.llmctl/`, which the next import removes",
)
def test_killed_import(box: Box, elsewhere: Box) -> None:
    model = box.pulled(size_bytes=64 * MIB)
    path = archive(box, model.name)
    scratch = elsewhere.store / ".llmctl"
    for seed in SEEDS:
        goal = random.Random(seed).randrange(1, 60 * MIB)

        def copied(goal: int = goal) -> bool:
            return sum(file.stat().st_size for file in list(scratch.glob("import-*")) if file.exists()) >= goal

        killed(elsewhere, "import", str(path), "--yes", when=copied)
        elsewhere.sound()
        if not elsewhere.lock.models:
            assert elsewhere.tags() == {}
    done = elsewhere("import", str(path), "--yes")
    assert done.code == 0, done.err
    assert elsewhere.lock.models == box.lock.models
    assert not list(scratch.glob("import-*"))
    elsewhere.sound()


@fault(
    what="`kill -9` of llmctl during an export",
    how="when the first bytes of the archive are written",
    happens="the next export is exit 0",
    left="a hidden unfinished file beside the archive, which the next export writes over; no half archive",
)
def test_killed_export(box: Box) -> None:
    model = box.pulled(size_bytes=64 * MIB)
    path = box.folder / "model.tar"
    half = path.with_name(f".{path.name}.partial")
    killed(
        box,
        "export",
        model.name,
        "-o",
        str(path),
        when=lambda: half.exists() and half.stat().st_size > MIB,
    )
    assert not path.exists()
    assert box("export", model.name, "-o", str(path)).code == 0
    assert not half.exists()
    box.sound()


@fault(
    what="`kill -9` of the server during a pull",
    how="SIGKILL to `ollama serve` when half of 4 MiB has come",
    happens="exit 1 or 3 from llmctl at once; with the server back, the next pull is exit 0. Ollama notes how far it "
    "was only when it ends a part by itself, so the part that was on its way comes again",
    left="Ollama's `-partial`",
)
def test_killed_server(box: Box, ollama_server: StartOllama) -> None:
    model = box.publish(size_bytes=4 * MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    process = box.start("pull", model.name)
    until(lambda: box.registry.sent[model.weights] >= 2 * MIB, process)
    box.server.process.send_signal(signal.SIGKILL)
    done = finished(process)
    assert done.code in {1, 3}, done
    assert "hint: " in done.err
    assert box.lock.models == ()
    box.server = ollama_server(models=box.store)
    box.registry.blob_fault = None
    box.sound()
    assert box("pull", model.name).code == 0
    box.sound()


@fault(
    what="Two llmctl pull the same model at once",
    how="two processes, 1 MiB of weights that come slowly",
    happens="exit 0 from both; the weights come once",
    left="one model, one pin",
)
def test_two_pulls_at_once(box: Box) -> None:
    model = box.publish(size_bytes=MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    running = [box.start("pull", model.name) for _ in range(2)]
    done = [finished(process) for process in running]
    assert [each.code for each in done] == [0, 0], done
    assert box.registry.sent[model.weights] == model.size_bytes
    assert [pin.name for pin in box.lock.models] == [model.name]
    box.sound()


@fault(
    what="A foreign `ollama pull` of the same model runs beside llmctl's",
    how="/api/pull by somebody else when the first bytes have come",
    happens="exit 0; the weights come once",
    left="one model, one pin",
)
def test_foreign_pull_of_the_same(box: Box) -> None:
    model = box.publish(size_bytes=MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    process = box.start("pull", model.name)
    until(lambda: box.registry.sent[model.weights] > 0, process)
    box.server.post("/api/pull", {"model": model.name, "insecure": True})
    assert finished(process).code == 0
    assert box.registry.sent[model.weights] == model.size_bytes
    box.sound()


@fault(
    what="A foreign `ollama pull` of a moved tag runs beside llmctl's",
    how="the tag moves when the first bytes of the old weights have come, and somebody pulls the new ones",
    happens="exit 0 with the weights that were asked for, or exit 5, `drift`; what is pinned is what was asked for",
    left="both models",
)
def test_foreign_pull_of_a_moved_tag_meanwhile(box: Box) -> None:
    first = box.publish(seed="one", size_bytes=MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", first.weights
    process = box.start("pull", first.name)
    until(lambda: box.registry.sent[first.weights] > 0, process)
    box.publish(seed="two", size_bytes=MIB)
    box.server.post("/api/pull", {"model": first.name, "insecure": True})
    done = finished(process)
    assert done.code in {0, 5}, done
    assert [pin.manifest_digest for pin in box.lock.models] == ([first.manifest] if done.code == 0 else [])
    box.sound()


@fault(
    what="`prune` runs beside a pull",
    how="`prune --yes` again and again while 1 MiB of weights comes slowly",
    happens="exit 0 from the pull: a download that is younger than an hour stays",
    left="the model, pinned",
)
def test_prune_beside_a_pull(box: Box) -> None:
    model = box.publish(size_bytes=MIB)
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    process = box.start("pull", model.name)
    until(lambda: box.registry.sent[model.weights] > 0, process)
    while process.poll() is None:
        assert box("prune", "--yes").code == 0
    assert finished(process).code == 0
    box.sound()


@fault(
    what="`prune` meets a download that broke off long ago",
    how="a `-partial` whose times are an hour and a half back, and a blob that no model names",
    happens="exit 0: both go, and nothing that is pinned",
    left="the pinned model",
)
def test_prune_of_leftovers(box: Box) -> None:
    box.pulled()
    blobs = box.store / "blobs"
    old = [blobs / f"sha256-{'0' * 64}-partial", blobs / f"sha256-{'0' * 64}-partial-0", blobs / f"sha256-{'1' * 64}"]
    then = time.time() - LONG_AGO
    for path in old:
        path.write_bytes(b"half")
        os.utime(path, (then, then))
    done = box("prune", "--yes")
    assert done.code == 0, done.err
    assert not [path for path in old if path.exists()]
    box.sound()


@fault(
    what="Two repairs at once",
    how="two processes, 1 MiB of weights that come slowly",
    happens="exit 0 from both: the second waits for the first, and says so",
    left="the model as it was pinned; the weights came once",
)
def test_two_repairs_at_once(box: Box) -> None:
    model = box.pulled(size_bytes=MIB)
    flip(box.blob(model.weights))
    box.registry.sent.clear()
    box.registry.blob_fault, box.registry.spoiled = "trickle", model.weights
    running = [box.start("repair", "--yes") for _ in range(2)]
    done = [finished(process) for process in running]
    assert [each.code for each in done] == [0, 0], done
    assert box.registry.sent[model.weights] == model.size_bytes
    box.sound()


@fault(
    what="A repair while the model answers",
    how="requests for the model's details all the time while its blob is replaced",
    happens="exit 0; every request is answered",
    left="the model as it was pinned",
)
def test_repair_under_load(box: Box) -> None:
    model = box.pulled(size_bytes=MIB)
    flip(box.blob(model.weights))
    stop, statuses = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            statuses.append(box.server.request("POST", "/api/show", {"model": model.name})[0])

    asking = threading.Thread(target=ask)
    asking.start()
    done = box("repair", "--yes")
    stop.set()
    asking.join()
    assert done.code == 0, done.err
    assert statuses
    assert set(statuses) == {200}
    box.sound()


@fault(
    what="`ollama rm` of the plain name",
    how="somebody deletes the name that llmctl pulled",
    happens="`verify` exits 0: the alias keeps every blob",
    left="the alias with all its blobs",
)
def test_foreign_rm(box: Box) -> None:
    model = box.pulled()
    box.server.request("DELETE", "/api/delete", {"model": model.name})
    assert box.tags() == {box.lock.models[0].alias: model.manifest}
    box.sound()


@fault(
    what="The server restarts over a store with leftovers",
    how="`ollama serve` started anew; it prunes what it does not know",
    happens="`verify` exits 0: the alias names what is pinned, so nothing of it goes; `.llmctl/` stays",
    left="the pinned model",
)
def test_server_restart(box: Box, ollama_server: StartOllama) -> None:
    box.pulled()
    scratch = box.store / ".llmctl"
    scratch.mkdir(exist_ok=True)
    (scratch / "unfinished").write_bytes(b"half")
    box.environ["OLLAMA_MODELS"] = str(box.store)
    box.server.stop()
    box.sound()
    box.server = ollama_server(models=box.store)
    assert (scratch / "unfinished").exists()
    box.sound()
