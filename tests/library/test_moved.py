"""A name that moves: refused with old beside new, taken when asked, put back; and two at one store at once."""

from __future__ import annotations

import fcntl
import io
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.cli import main
from llmctl.core.manifest import parse_manifest
from llmctl.core.model import ModelRef
from llmctl.core.pin import Lock
from llmctl.core.server_state import ActiveModel, ServerState
from llmctl.env import Env
from llmctl.library import lock_file, usage
from llmctl.library import prune as pruning
from llmctl.server import Server
from llmctl.system.paths import from_environment
from llmctl.system.store import Store
from tests.conftest import StartOllama
from tests.library.pinned import Pinned, Ran
from tests.library.test_prune import age, waits_for_lock
from tests.memory.gguf_bytes import small
from tests.registry_server import Registry, digest_of

pytestmark = pytest.mark.real("ollama")


@pytest.fixture
def here(ollama_server: StartOllama, tmp_path: Path) -> Pinned:
    """llmctl attached to a real server with an empty store."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    server = ollama_server()
    return Pinned(folder, server.url, Store(server.models))


def publish(registry: Registry, name: str, *, salt: bytes = b"", template: str = "{{ .Prompt }}") -> str:
    """A GGUF of some kilobytes with a header like a real one; the manifest's digest."""
    content = small() + salt
    path = registry.folder / f"weights-{digest_of(content)[7:19]}"
    path.write_bytes(content)
    return registry.add(name, path, digest_of(content), template=template)


def run(here: Pinned, *words: str) -> dict[str, object]:
    done = here(*words, "--json", given=False)
    assert done.code == 0, done.err
    return done.json


def test_a_moved_tag_is_refused_with_old_and_new_side_by_side(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    first = run(here, "pull", name)
    new = publish(registry, "m:t", salt=b"other weights", template="other {{ .Prompt }}")
    for model in here("list", "--json", given=False).json["models"]:
        assert model["pin_state"] == "pinned"
    # The pinned weights are lost, so the registry has to be asked.
    for each in (str(first["alias"]), name):
        here.store.remove_manifest(ModelRef.parse(each))
    refused = here("pull", name, "--json", given=False)
    assert refused.code == 5
    assert "error" not in refused.err
    error = refused.json["error"]
    assert (error["code"], error["hint"]) == ("drift", f"llmctl pull {name} --update")
    assert (refused.json["schema"], refused.json["name"]) == (1, name)
    assert (refused.json["pinned_digest"], refused.json["found_digest"]) == (first["manifest_digest"], new)
    weights, template = refused.json["changes"]
    assert (weights["part"], template["part"]) == ("weights", "template")
    assert weights["was"]["digest"] == first["weights_digest"]
    assert weights["now"]["digest"] == digest_of(small() + b"other weights")
    assert (weights["was"]["size_bytes"], weights["now"]["size_bytes"]) == (len(small()), len(small()) + 13)
    text = here("pull", name, given=False)
    assert (text.code, text.out) == (5, "")
    shown = text.err
    table = [line for line in shown.splitlines() if line.startswith(("manifest", "weights", "template", "parameters"))]
    assert [line.split()[0] for line in table] == ["manifest", "weights", "template"]
    assert all(len(line) <= 40 for line in shown.splitlines() if line.startswith(("manifest", "weights", " ")))
    assert str(first["manifest_digest"])[7:19] in table[0]
    assert new[7:19] in table[0]
    assert str(first["weights_digest"])[7:19] in table[1]
    assert here.store.manifest(ModelRef.parse(name)) is None


def test_update_says_what_changed_and_leaves_the_old_alias_to_prune(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    first = run(here, "pull", name)
    publish(registry, "m:t", template="other {{ .Prompt }}")
    done = here("pull", name, "--update", given=False)
    assert done.code == 0, done.err
    assert "what changed:" in done.out
    assert "template" in done.out.split("what changed:")[1]
    assert "weights" not in done.out.split("what changed:")[1]
    again = run(here, "pull", name, "--update")
    assert (again["changed"], again["previous_digest"], again["changes"]) == (False, None, [])
    names = {str(ref) for ref in here.store.names()}
    assert {first["alias"], again["alias"], name} == names
    age(here.store)
    assert run(here, "prune", "--yes")["aliases"] == [first["alias"]]
    assert run(here, "list")["findings"] == []


def test_a_foreign_pull_of_the_moved_tag_is_said_and_undone_when_agreed(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    first = run(here, "pull", name)
    moved = publish(registry, "m:t", salt=b"other weights")
    from llmctl.client import Client

    list(Client(here.url).pull(name, insecure=True))
    listed = here("list", "--json", given=False).json
    assert [(m["pin_state"], m["plain"], m["plain_digest"]) for m in listed["models"]] == [
        ("pinned", "moved", moved[7:])
    ]
    assert moved[7:19] in listed["findings"][0]
    refused = here("pull", name, given=False)
    assert refused.code == 2
    assert moved[7:19] in refused.err
    assert digest_of(here.store.manifest(ModelRef.parse(name)) or b"") == moved
    back = run(here, "pull", name, "--yes")
    assert back["changed"] is True
    assert moved[7:19] in str(back["note"])
    assert digest_of(here.store.manifest(ModelRef.parse(name)) or b"") == first["manifest_digest"]
    assert run(here, "pull", name)["changed"] is False


def test_another_spelling_of_a_pinned_name_is_the_pinned_model(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:latest")
    publish(registry, "m:latest")
    first = run(here, "pull", name)
    again = run(here, "pull", registry.name("M"))
    assert (again["name"], again["changed"]) == (name, False)
    publish(registry, "m:latest", salt=b"other weights")
    registry.manifests["M/latest"] = registry.manifests["m/latest"]
    for each in (str(first["alias"]), name):
        here.store.remove_manifest(ModelRef.parse(each))
    for spelling in (registry.name("m"), registry.name("M:latest")):
        assert here("pull", spelling, given=False).code == 5
    updated = run(here, "pull", registry.name("m"), "--update")
    assert [pin.name for pin in lock_file.read(here.lock_path).models] == [updated["name"]] == [name]


def test_rm_knows_a_pinned_model_in_every_spelling(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:latest")
    publish(registry, "m:latest")
    first = run(here, "pull", name)
    for spelling in (registry.name("m"), registry.name("M:Latest"), str(first["alias"]).upper()):
        refused = here("rm", spelling, "--json", given=False)
        assert (refused.code, refused.error["code"]) == (2, "consent_needed")
        assert lock_file.read(here.lock_path).models
    done = run(here, "rm", registry.name("M"), "--yes")
    assert set(done["deleted"]) == {first["alias"], name}  # type: ignore[call-overload]
    assert done["unpinned"] is True
    assert lock_file.read(here.lock_path).models == ()
    assert list(here.store.names()) == []


def test_weights_that_only_the_server_knows_are_asked_for_and_never_assumed(here: Pinned, registry: Registry) -> None:
    """A model that each machine makes itself has another manifest on each: its weights are what is pinned."""
    from llmctl.client import Client
    from llmctl.library.inventory import from_server, listed, with_weights

    publish(registry, "m:t")
    run(here, "pull", registry.name("m:t"))
    client, (pulled,) = Client(here.url), lock_file.read(here.lock_path).models
    pin = replace(pulled, source="file", registry=None)
    client.delete(pin.served)
    elsewhere = replace(pin, manifest_digest="sha256:" + "8" * 64)
    other = replace(elsewhere, weights_digest="sha256:" + "9" * 64)
    for each, state in ((pin, "pinned"), (elsewhere, "pinned"), (other, "drifted")):
        lock = Lock((each,))
        assert [entry.pin_state for entry in listed(with_weights(from_server(client), lock, client), [lock])] == [state]
    assert [entry.pin_state for entry in listed(from_server(client), [Lock((elsewhere,))])] == ["unknown"]


def test_damaged_weights_are_not_pinned_while_the_registry_is_away(here: Pinned, registry: Registry) -> None:
    from llmctl.client import Client

    name = registry.name("m:t")
    publish(registry, "m:t")
    list(Client(here.url).pull(name, insecure=True))
    manifest = parse_manifest(here.store.manifest(ModelRef.parse(name)) or b"")
    assert manifest.weights is not None
    blob = here.store.blob(manifest.weights.digest)
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    registry.fault = "page"
    refused = here("pull", name, "--json", given=False)
    assert (refused.code, refused.error["code"]) == (1, "damaged_blob")
    assert manifest.weights.digest in refused.error["message"]
    assert lock_file.read(here.lock_path).models == ()
    blob.write_bytes(good)
    assert "as it is installed" in str(run(here, "pull", name)["note"])


def test_status_says_that_the_plain_name_moved(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    first = run(here, "pull", name)
    model = ActiveModel(
        name=name,
        served=name,
        alias=str(first["alias"]),
        manifest_digest=str(first["manifest_digest"]),
        served_digest=str(first["manifest_digest"])[7:],
        weights_digest=str(first["weights_digest"]),
        quantization="Q4_K_M",
        context=2048,
        size_bytes=None,
        verdict="proved",
        place="cpu",
        source="registry",
    )
    state = ServerState(
        profile=str(here.folder / "profile.yaml"),
        base_url=here.url,
        owner="foreign",
        engine_version="0.34.0",
        store=str(here.store.path),
        require="none",
        context=2048,
        parallel=1,
        kv_cache="f16",
        models=(model,),
    )
    server = Server(from_environment(os.environ), os.environ)
    server.record(state)
    assert here("status", "--json", given=False).json["models"][0]["findings"] == []
    moved = publish(registry, "m:t", salt=b"other weights")
    from llmctl.client import Client

    list(Client(here.url).pull(name, insecure=True))
    (finding,) = here("status", "--json", given=False).json["models"][0]["findings"]
    assert moved[7:19] in finding
    assert f"llmctl pull {name}" in finding
    assert "finding" in here("status", given=False).out
    # A pin that no registry knows promises nothing about the plain name.
    server.record(replace(state, models=(replace(model, source="file"),)))
    assert here("status", "--json", given=False).json["models"][0]["findings"] == []


def test_pull_waits_for_another_llmctl_that_changes_the_store(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    (here.store.path).mkdir(exist_ok=True)
    descriptor = os.open(here.store.path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    ran: list[object] = []
    thread = threading.Thread(target=lambda: ran.append(here("pull", name, given=False)))
    thread.start()
    deadline = time.monotonic() + 20
    while not waits_for_lock() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ran == []
    assert registry.asked == []
    os.close(descriptor)
    thread.join()
    done = ran[0]
    assert done.code == 0  # type: ignore[attr-defined]
    assert "another llmctl is changing this store" in done.err  # type: ignore[attr-defined]


def test_up_waits_for_another_llmctl_that_changes_the_store(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    profile = f"schema: 1\nmodels:\n  - {{name: '{name}', resident: false}}\ngpu: {{require: none}}\n"
    (here.folder / "profile.yaml").write_text(profile)
    here.store.path.mkdir(exist_ok=True)
    ran: list[Ran] = []
    thread = threading.Thread(target=lambda: ran.append(here("up", "--json", given=False)))
    with here.store.changing(lambda: None):
        thread.start()
        deadline = time.monotonic() + 20
        while not waits_for_lock() and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(here.store.names()) == []
    thread.join()
    assert ran[0].code == 0, ran[0].err
    assert lock_file.read(here.lock_path).pin(name) is not None


class Answering(io.StringIO):
    """A terminal at which somebody thinks before saying yes."""

    def __init__(self, think: Callable[[], object]) -> None:
        super().__init__()
        self.think = think

    def isatty(self) -> bool:
        return True

    def readline(self, *_: object) -> str:  # type: ignore[override]
        self.think()
        return "y\n"


def asked(here: Pinned, think: Callable[[], object], *words: str) -> Ran:
    """A command line at a terminal."""
    stdout, stderr = io.StringIO(), Answering(lambda: None)
    environ = {**os.environ, "OLLAMA_HOST": here.url, "LLMCTL_CONFIG_DIR": str(here.folder), "TERM": "dumb"}
    code = main(list(words), Env(environ, Answering(think), stdout, stderr))
    return Ran(code, stdout.getvalue(), stderr.getvalue())


def test_a_question_that_nobody_answers_keeps_no_other_llmctl_waiting(here: Pinned, registry: Registry) -> None:
    from llmctl.client import Client

    name, thought = registry.name("m:t"), []
    publish(registry, "m:t")
    run(here, "pull", name)

    def think() -> None:
        # Taken and let go, as another llmctl would.
        descriptor = os.open(here.store.path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        thought.append(name)

    publish(registry, "m:t", salt=b"other weights")
    list(Client(here.url).pull(name, insecure=True))
    for words in (["pull", name], ["rm", name]):
        done = asked(here, think, *words)
        assert done.code == 0, done.err
    assert len(thought) == 2
    assert list(here.store.names()) == []


def test_rm_deletes_only_what_was_there_when_it_asked(here: Pinned, registry: Registry) -> None:
    name = registry.name("m:t")
    publish(registry, "m:t")
    run(here, "pull", name)
    publish(registry, "m:t", salt=b"other weights")
    done = asked(here, lambda: run(here, "pull", name, "--update"), "rm", name)
    assert done.code == 5, done.err
    assert "changed meanwhile" in done.err
    assert len(list(here.store.names())) == 3


@pytest.mark.parametrize(("salt", "code"), [(b"other weights", 5), (b"", 0)])
def test_what_another_llmctl_pinned_meanwhile_is_not_overwritten(
    here: Pinned, registry: Registry, tmp_path: Path, salt: bytes, code: int
) -> None:
    """Two servers, two stores, one lock, and a tag that moves while the first pulls."""
    name = registry.name("m:t")
    first = publish(registry, "m:t")
    elsewhere = Pinned(tmp_path / "elsewhere", here.url, Store(tmp_path / "none"))
    elsewhere.add("x:t", b"x")
    pin = replace(elsewhere.lock.models[0], name=name)
    same = replace(pin, manifest_digest=first, weights_digest=digest_of(small()), pinned_at="2026-01-01T00:00:00+00:00")
    theirs = pin if salt else same

    def pin_it(_: str) -> None:
        registry.streamed = lambda _: None
        lock_file.change(here.lock_path, lambda lock: lock.with_pin(theirs))

    registry.streamed = pin_it
    done = here("pull", name, "--json", given=False)
    assert done.code == code, done.err
    assert lock_file.read(here.lock_path).models == (theirs,)
    if code == 5:
        assert (done.json["pinned_digest"], done.json["found_digest"]) == (theirs.manifest_digest, first)


def test_a_foreign_pull_at_the_same_time_does_no_harm(here: Pinned, registry: Registry) -> None:
    """llmctl pulls, pins and prunes while Ollama's own client pulls another model that shares the template."""
    from llmctl.client import Client

    names = [f"m{number}:t" for number in range(6)]
    for number, each in enumerate(names):
        publish(registry, each, salt=bytes([number]) * 50_000)
    failed: list[BaseException] = []

    def foreign() -> None:
        try:
            for each in names:
                list(Client(here.url).pull(registry.name(each), insecure=True))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=foreign)
    thread.start()
    for each in reversed(names):
        run(here, "pull", registry.name(each))
        run(here, "prune", "--yes")
    thread.join()
    assert failed == []
    assert here("verify", given=False).code == 0
    states = here("list", "--json", given=False).json["models"]
    assert {(model["pin_state"], model["plain"]) for model in states} == {("pinned", "same")}


def test_the_lock_of_every_profile_is_known_to_prune(here: Pinned, registry: Registry, tmp_path: Path) -> None:
    publish(registry, "m:t")
    publish(registry, "n:t", salt=b"n")
    run(here, "pull", registry.name("m:t"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "team.yaml").write_text("schema: 1\nmodels:\n  - name: n\ngpu: {require: none}\n")
    run(here, "pull", registry.name("n:t"), "--profile", str(project / "team.yaml"))
    known = {lock.path for lock in usage.known_locks(from_environment(os.environ).state)}
    assert known == {str(project / "team.lock"), str(here.lock_path)}
    age(here.store)
    assert run(here, "prune", "--yes")["aliases"] == []
    asked = here("rm", registry.name("n:t"), given=False)
    assert asked.code == 2
    assert str(project / "team.lock") in asked.err


@pytest.mark.parametrize("verb", ["list", "verify", "repair"])
def test_a_teams_lock_that_was_only_looked_at_is_known_to_prune(
    here: Pinned, registry: Registry, tmp_path: Path, verb: str
) -> None:
    publish(registry, "m:t")
    run(here, "pull", registry.name("m:t"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "team.yaml").write_text((here.folder / "profile.yaml").read_text())
    here.lock_path.rename(project / "team.lock")
    age(here.store)
    run(here, verb, "--profile", str(project / "team.yaml"))
    assert run(here, "prune", "--yes")["aliases"] == []


def test_a_loaded_alias_stays_and_is_named(here: Pinned, registry: Registry) -> None:
    publish(registry, "m:t")
    first = run(here, "pull", registry.name("m:t"))
    lock_file.write(here.lock_path, lock_file.read(here.lock_path).without(registry.name("m:t")))
    age(here.store)
    digest = str(first["manifest_digest"])[7:]
    plan = pruning.plan(here.store, (), [digest], time.time())
    assert plan.aliases == ()
    assert any(str(first["alias"]) in note and "loaded" in note for note in plan.notes)
    assert pruning.plan(here.store, (), [], time.time()).aliases == (first["alias"],)


def test_a_name_that_only_another_store_has_is_said_by_rm(
    here: Pinned, home: Path, free_port: Callable[[], int]
) -> None:
    other = Pinned(here.folder, here.url, Store(home / ".ollama" / "models"))
    other.add("theirs:t", b"theirs")
    lock_file.write(here.lock_path, lock_file.read(here.lock_path).without("theirs:t"))
    here.store.path.mkdir(exist_ok=True)
    missing = here("rm", "theirs:t", "--json", given=False)
    assert missing.code == 4
    assert str(other.store.path) in missing.error["message"]
