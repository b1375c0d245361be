"""`llmctl verify`: everything pinned is hashed, and whatever is wrong is named with its proof."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.client import Client
from llmctl.commands import pins as commands
from llmctl.core.model import ModelRef
from llmctl.env import Env
from llmctl.errors import ExitCode
from llmctl.library import lock_file
from llmctl.system.store import Store
from llmctl.workflows import pins as workflow
from tests.library.conftest import STARTER_DIGEST
from tests.library.pinned import Pinned, tree
from tests.parts.ollama import OllamaServer
from tests.registry_server import digest_of

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = random.Random(5).randbytes(3 << 20)
AGE = ("--since", "24h")


@pytest.fixture
def pinned(tmp_path: Path, free_port: Callable[[], int]) -> Pinned:
    """A store of its own, and no server."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    store = tmp_path / "models"
    store.mkdir()
    return Pinned(folder, f"127.0.0.1:{free_port()}", Store(store))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_what_is_whole_is_good_and_nothing_is_touched(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    before = tree(pinned.store.path)
    done = pinned("verify", "--json")
    assert done.code == 0, done.err
    assert done.json["good"] is True
    assert done.json["remedy"] is None
    assert done.json["store"] == str(pinned.store.path)
    assert done.json["why"] == "given with --store"
    assert done.json["server"] is None
    assert (done.json["hashed"], done.json["hashed_bytes"]) == (3, pin.size_bytes)
    assert [(m["name"], m["manifest"], m["served"]) for m in done.json["models"]] == [("m:t", "pinned", None)]
    text = pinned("verify")
    assert "good" in text.out
    assert f"3 blobs, {len(WEIGHTS) >> 20} MiB" in text.out
    assert tree(pinned.store.path) == before


def damage(pinned: Pinned, how: str, path: Path) -> None:
    """Make a blob bad in one of the ways that happen."""
    if how == "flip":
        flip(path, len(WEIGHTS) // 2)
    elif how == "zero":
        with path.open("r+b") as file:
            file.seek(1 << 20)
            file.write(bytes(4096))
    elif how == "truncate":
        os.truncate(path, 1 << 20)
    elif how == "longer":
        with path.open("ab") as file:
            file.write(b"x")
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "delete":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "nowhere":
        path.unlink()
        path.symlink_to(pinned.folder / "gone")
    elif how == "circle":
        path.unlink()
        path.symlink_to(path)


@pytest.mark.parametrize(
    ("how", "problem", "found_bytes"),
    [
        ("flip", "content", len(WEIGHTS)),
        ("zero", "content", len(WEIGHTS)),
        ("truncate", "size", 1 << 20),
        ("longer", "size", len(WEIGHTS) + 1),
        ("empty", "size", 0),
        ("delete", "missing", None),
        ("folder", "not_a_file", None),
        ("pipe", "not_a_file", None),
        ("nowhere", "dangling_link", None),
        ("circle", "unreadable", None),
    ],
)
def test_a_bad_blob_is_named_with_its_proof(pinned: Pinned, how: str, problem: str, found_bytes: int | None) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    good = pinned.add("other:t", b"other weights")
    damage(pinned, how, pinned.path(pin.weights_digest))
    done = pinned("verify", "--json")
    assert done.code == ExitCode.NO
    (bad,) = done.json["bad_blobs"]
    assert (bad["problem"], bad["digest"], bad["expected_bytes"]) == (problem, pin.weights_digest, len(WEIGHTS))
    assert bad["found_bytes"] == found_bytes
    assert bad["models"] == ["m:t"]
    assert bad["path"] == str(pinned.path(pin.weights_digest))
    if found_bytes is not None:
        assert bad["found_digest"] == digest_of(Path(bad["path"]).read_bytes())
    assert {model["name"]: model["good"] for model in done.json["models"]} == {"m:t": False, good.name: True}
    assert done.json["remedy"] == f"llmctl repair --store {pinned.store.path}"
    said = pinned("verify").out
    assert pin.weights_digest in said
    assert "llmctl repair" in said


def test_two_blobs_in_each_others_place(pinned: Pinned) -> None:
    one, two = pinned.add("a:t", WEIGHTS), pinned.add("b:t", WEIGHTS[::-1])
    first, second = pinned.path(one.weights_digest), pinned.path(two.weights_digest)
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)
    found = {bad["digest"]: bad["found_digest"] for bad in pinned("verify", "--json").json["bad_blobs"]}
    assert found == {one.weights_digest: two.weights_digest, two.weights_digest: one.weights_digest}


def test_a_shared_blob_is_hashed_once_and_breaks_both(pinned: Pinned) -> None:
    one, two = pinned.add("a:t", WEIGHTS), pinned.add("b:t", WEIGHTS)
    assert pinned("verify", "--json").json["hashed"] == 4
    flip(pinned.path(one.weights_digest), 7)
    (bad,) = pinned("verify", "--json").json["bad_blobs"]
    assert bad["models"] == [one.name, two.name]
    (named,) = pinned("verify", "b:t", "--json").json["bad_blobs"]
    assert named["models"] == [two.name]


def test_a_symlinked_blob_is_followed(pinned: Pinned, tmp_path: Path) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    elsewhere = tmp_path / "elsewhere"
    pinned.path(pin.weights_digest).rename(elsewhere)
    pinned.path(pin.weights_digest).symlink_to(elsewhere)
    assert pinned("verify").code == 0
    flip(elsewhere, 0)
    assert pinned("verify").code == ExitCode.NO


@pytest.mark.parametrize(
    ("content", "state", "said"),
    [
        (None, "missing", "missing"),
        (b'{"schemaVersion":2}', "damaged", "no list of layers"),
        (b"\0" * 100, "damaged", "no manifest"),
        (b"[" * 100_000, "damaged", "no manifest"),
        (b'{"config":{"digest":"sha256:../../../etc/passwd","size":1},"layers":[]}', "damaged", "../../../etc"),
    ],
)
def test_a_manifest_that_is_none(pinned: Pinned, content: bytes | None, state: str, said: str) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    path = pinned.store.manifest_path(ModelRef.parse(pin.alias))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    done = pinned("verify", "--json")
    assert done.code == ExitCode.NO
    (bad,) = done.json["bad_manifests"]
    assert (bad["state"], bad["expected"], bad["model"]) == (state, pin.manifest_digest, pin.name)
    assert bad["found"] == (None if content is None else digest_of(content))
    assert done.json["bad_blobs"] == []
    assert said in pinned("verify").out


def test_an_alias_with_other_weights_is_no_pin(pinned: Pinned) -> None:
    pin, other = pinned.add("m:t", WEIGHTS), pinned.add("other:t", b"other")
    content = pinned.store.manifest(ModelRef.parse(other.alias)) or b""
    pinned.store.write_manifest(ModelRef.parse(pin.alias), content)
    (bad,) = pinned("verify", "m:t", "--json").json["bad_manifests"]
    assert (bad["state"], bad["found"]) == ("other", other.manifest_digest)
    context = ModelRef.parse(f"{other.alias}-c4096")
    pinned.store.write_manifest(context, pinned.store.manifest(ModelRef.parse(pin.served)) or b"")
    (bad,) = pinned("verify", "other:t", "--json").json["bad_manifests"]
    assert (bad["alias"], bad["state"], bad["expected"]) == (str(context), "other", None)


def test_a_model_that_a_server_made_is_held_to_its_weights(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    pinned.pin(replace(pin, source="file", from_="/x.gguf", manifest_digest=digest_of(b"of another machine")))
    assert pinned("verify").code == 0
    assert pin.config
    pinned.path(pin.config.digest).write_bytes(b"{}")
    (bad,) = pinned("verify", "--json").json["bad_blobs"]
    assert bad["digest"] == pin.config.digest
    pinned.store.remove_manifest(ModelRef.parse(pin.alias))
    done = pinned("verify", "--json").json
    assert done["bad_blobs"] == []
    assert [(bad["state"], bad["expected"]) for bad in done["bad_manifests"]] == [("missing", None)]


def test_since_skips_what_was_hashed_and_is_unchanged(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    assert pinned("verify", *AGE, "--json").json["skipped"] == 0
    second = pinned("verify", *AGE, "--json").json
    assert (second["hashed"], second["skipped"], second["skipped_bytes"]) == (0, 3, pin.size_bytes)
    assert second["skipped_since"].endswith("+00:00")
    assert second["good"] is True
    assert second["skipped_since"] in pinned("verify", *AGE).out
    assert pinned("verify", "--json").json["hashed"] == 3
    assert pinned("verify", "--since", "0s", "--json").json["hashed"] == 3

    weights = pinned.path(pin.weights_digest)
    before = weights.stat()
    flip(weights, 5)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = pinned("verify", *AGE, "--json")
    assert done.code == ExitCode.NO, "the same size and time do not hide a write"
    assert (done.json["hashed"], done.json["skipped"]) == (1, 2)
    assert pinned("verify", *AGE).code == ExitCode.NO, "a bad blob is never noted"


def test_a_replaced_blob_is_hashed_again(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    pinned("verify")
    weights = pinned.path(pin.weights_digest)
    copy = weights.with_name("copy")
    copy.write_bytes(WEIGHTS)
    os.utime(copy, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
    copy.replace(weights)
    assert pinned("verify", *AGE, "--json").json["hashed"] == 1


def test_notes_of_one_store_say_nothing_of_another(pinned: Pinned, tmp_path: Path) -> None:
    pinned.add("m:t", WEIGHTS)
    pinned("verify")
    other = Pinned(pinned.folder, pinned.url, Store(tmp_path / "other"))
    other.add("m:t", WEIGHTS)
    assert other("verify", *AGE, "--json").json["hashed"] == 3
    assert pinned("verify", *AGE, "--json").json["hashed"] == 0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"stores": {"x": 5}}', b'{"stores":' + b"[" * 100_000])
def test_damaged_notes_are_no_notes(pinned: Pinned, content: bytes) -> None:
    pinned.add("m:t", WEIGHTS)
    pinned("verify")
    notes = notes_path()
    notes.write_bytes(content)
    assert pinned("verify", *AGE, "--json").json["hashed"] == 3
    assert pinned("verify", *AGE, "--json").json["hashed"] == 0


def notes_path() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "llmctl" / "verified.json"


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1w", "1 h", "1e9h", "nan"])
def test_what_is_no_age(pinned: Pinned, text: str) -> None:
    pinned.add("m:t", WEIGHTS)
    done = pinned("verify", f"--since={text}")
    assert done.code == ExitCode.USAGE
    assert "30m" in done.err


def test_names(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    pinned.add("gone:t", b"gone")
    for name in ("m:t", "registry.ollama.ai/library/m:t", "M:T", pin.alias):
        assert [model["name"] for model in pinned("verify", name, "--json").json["models"]] == ["m:t"]
    assert len(pinned("verify", "m:t", "gone:t", "m:t", "--json").json["models"]) == 2
    missing = pinned("verify", "nobody:t", "--json")
    assert (missing.code, missing.error["code"]) == (ExitCode.NOT_FOUND, "not_pinned")


def test_nothing_pinned_is_nothing_proved(pinned: Pinned) -> None:
    done = pinned("verify", "--json")
    assert (done.code, done.error["code"]) == (ExitCode.NOT_FOUND, "nothing_pinned")
    pinned.add("m:t", WEIGHTS)
    assert Pinned(pinned.folder, pinned.url, Store(pinned.folder / "none"))("verify").code == ExitCode.NOT_FOUND


def test_a_missing_store_has_none_of_it(pinned: Pinned) -> None:
    pinned.add("m:t", WEIGHTS)
    pinned.environ = {"OLLAMA_MODELS": str(pinned.folder / "nowhere")}
    done = pinned("verify", "--json", given=False)
    assert done.code == ExitCode.NO
    assert done.json["why"].startswith("no server runs")
    assert {bad["problem"] for bad in done.json["bad_blobs"]} == {"missing"}
    assert done.json["models"][0]["manifest"] == "missing"


def test_models_that_are_gone_are_looked_for_in_other_stores(pinned: Pinned, home: Path) -> None:
    other = Pinned(pinned.folder, pinned.url, Store(home / ".ollama" / "models"))
    other.add("m:t", WEIGHTS)
    done = pinned("verify", "--json")
    assert done.code == ExitCode.NO
    assert done.json["notes"] == [f"another model store of this machine is {other.store.path}, with 2 names"]
    assert other("verify", "--json").json["notes"] == []


def as_another_user(pinned: Pinned, *words: str, given: bool = True) -> subprocess.CompletedProcess[str]:
    """llmctl without root's rights: as nobody where the tests run as root."""
    store = ["--store", str(pinned.store.path)] if given else []
    program = [sys.executable, "-m", "llmctl", *words, *store]
    environ = {
        **os.environ,
        "OLLAMA_HOST": pinned.url,
        "LLMCTL_CONFIG_DIR": str(pinned.folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    return subprocess.run([*drop, *program], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)


def test_one_blob_that_this_user_may_not_read_is_a_finding(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    path = pinned.path(pin.weights_digest)
    path.chmod(0)
    done = as_another_user(pinned, "verify", "--json")
    assert done.returncode == ExitCode.NO, done.stderr
    found = json.loads(done.stdout)
    (bad,) = found["bad_blobs"]
    assert (bad["problem"], bad["remedy"]) == ("unreadable", f"sudo chmod a+r {path}")
    assert found["hashed"] == 2


def test_a_store_that_this_user_may_not_read_names_the_command(pinned: Pinned) -> None:
    pinned.add("m:t", WEIGHTS)
    for folder in (pinned.store.blobs_folder, pinned.store.path):
        folder.chmod(0)
        done = as_another_user(pinned, "verify", "--json")
        folder.chmod(0o755)
        assert done.returncode == ExitCode.FAILED
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert error["code"] == "permission_denied"
        assert error["hint"].startswith("sudo env LLMCTL_CONFIG_DIR=")
        # Root's run notes what it hashed where this user's next one looks for it.
        assert " LLMCTL_STATE_DIR=" in error["hint"]
        assert f"verify --profile {pinned.folder}/profile.yaml --store {pinned.store.path}" in error["hint"]


def test_a_store_that_nobody_may_write_is_verified(pinned: Pinned) -> None:
    pinned.add("m:t", WEIGHTS)
    for folder in (pinned.store.path, pinned.store.blobs_folder):
        folder.chmod(0o555)
    done = as_another_user(pinned, "verify", "--json")
    for folder in (pinned.store.path, pinned.store.blobs_folder):
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr


def slow_blobs(pinned: Pinned, count: int, size_bytes: int) -> None:
    piece = random.Random(1).randbytes(1 << 20)
    for number in range(count):
        weights = piece * (size_bytes >> 20) + bytes([number])
        pinned.add(f"m{number}:t", weights)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was(pinned: Pinned, how: signal.Signals) -> None:
    slow_blobs(pinned, 12, 64 << 20)
    environ = {**os.environ, "OLLAMA_HOST": pinned.url, "LLMCTL_CONFIG_DIR": str(pinned.folder)}
    words = [sys.executable, "-m", "llmctl", "verify", "--store", str(pinned.store.path)]
    process = subprocess.Popen(words, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(noted()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how is signal.SIGKILL else ExitCode.INTERRUPTED)
    done = pinned("verify", *AGE, "--json")
    assert done.code == 0
    assert done.json["skipped"] >= 2
    assert done.json["skipped"] + done.json["hashed"] == 12 * 2 + 1


def noted() -> dict[str, Any]:
    try:
        stores = json.loads(notes_path().read_bytes())["stores"]
    except FileNotFoundError:
        return {}
    return {digest: note for notes in stores.values() for digest, note in notes.items()}


def test_a_full_state_folder_costs_the_notes_and_not_the_answer(pinned: Pinned) -> None:
    pinned.add("m:t", WEIGHTS)
    notes_path().parent.mkdir(parents=True)
    notes_path().mkdir()
    assert pinned("verify").code == 0


real = pytest.mark.real("ollama", "model")


def answer(server: OllamaServer, model: str) -> str:
    said = server.post(
        "/api/generate",
        {"model": model, "prompt": "The capital of France is", "raw": True, "options": {"num_predict": 4, "seed": 1}},
    )
    return str(said["response"])


@real
def test_a_real_server_serves_what_is_pinned(served: tuple[Pinned, OllamaServer]) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    first = pinned("verify", "--json", given=False)
    assert first.code == 0, first.out
    assert first.json["why"] == f"the server at {server.url} uses it"
    model = first.json["models"][0]
    assert (model["served"], model["loaded"]) == ("pinned", False)

    # The plain name loads it: the same weights, one runner, and the alias is not what /api/ps shows.
    assert answer(server, pin.served)
    model = pinned("verify", "--json", given=False).json["models"][0]
    assert (model["good"], model["loaded"]) == (True, True)

    flip(pinned.path(STARTER_DIGEST), 200_000_000)
    done = pinned("verify", "--json", given=False)
    assert done.code == ExitCode.NO
    assert [(bad["digest"], bad["problem"]) for bad in done.json["bad_blobs"]] == [(STARTER_DIGEST, "content")]
    assert "llmctl down" in done.json["notes"][0]


@real
def test_a_real_server_that_serves_something_else_under_the_alias(
    served: tuple[Pinned, OllamaServer], ollama_server: Callable[..., OllamaServer]
) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    assert answer(server, pin.alias)
    # The same weights under another template: another manifest.
    server.post("/api/create", {"model": pin.alias, "from": pin.served, "template": "moved {{ .Prompt }}"})
    done = pinned("verify", "--json", given=False)
    assert done.code == ExitCode.NO
    assert done.json["models"][0]["manifest"] == "other"
    server.post("/api/copy", {"source": pin.served, "destination": pin.alias})
    assert pinned("verify", given=False).code == 0
    assert pin.config
    pinned.path(pin.config.digest).unlink()
    # A server that has listed it before goes on listing it; one that starts now does not.
    pinned.url = ollama_server(models=server.models).url
    model = pinned("verify", "--json", given=False).json["models"][0]
    assert (model["served"], model["bad_blobs"]) == ("not_listed", [pin.config.digest])


@real
def test_an_alias_with_a_context_is_verified_too(served: tuple[Pinned, OllamaServer]) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    context = f"{pin.alias}-c512"
    server.post("/api/create", {"model": context, "from": pin.alias, "parameters": {"num_ctx": 512}})
    before = pinned("verify", "--json", given=False)
    assert before.code == 0
    assert before.json["hashed"] > 3
    manifest = json.loads(pinned.store.manifest(ModelRef.parse(context)) or b"")
    parameters = next(layer["digest"] for layer in manifest["layers"] if layer["mediaType"].endswith("params"))
    pinned.path(parameters).write_bytes(b'{"num_ctx":513}')
    done = pinned("verify", "--json", given=False)
    assert [bad["digest"] for bad in done.json["bad_blobs"]] == [parameters]


def test_a_server_that_ended_meanwhile_does_not_take_the_findings_with_it(pinned: Pinned) -> None:
    pin = pinned.add("m:t", WEIGHTS)
    flip(pinned.path(pin.weights_digest), 5)
    environ = {**os.environ, "OLLAMA_HOST": pinned.url, "LLMCTL_CONFIG_DIR": str(pinned.folder)}
    env = Env(environ, io.StringIO(), io.StringIO(), io.StringIO())
    scope = commands.scope(env, "verify", [], None, pinned.store.path)
    # It answered when the store was looked for, and the hashing took its time.
    found = workflow.verify(replace(scope, client=Client(f"http://{pinned.url}")), None, lambda _: None)
    assert [bad.digest for bad in found.bad_blobs] == [pin.weights_digest]
    assert (found.models[0].served, found.models[0].loaded, found.good) == (None, None, False)
    assert any(pinned.url in note for note in found.notes), found.notes
