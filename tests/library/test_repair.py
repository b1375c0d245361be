"""`llmctl repair`: only what is bad is fetched, nothing that does not hash is accepted, nothing that does is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.client import Client
from llmctl.core.model import ModelRef
from llmctl.errors import ExitCode
from llmctl.library import lock_file, sources
from llmctl.system import blob_download
from llmctl.system import registry as asking
from llmctl.system.store import Store
from tests.conftest import StartOllama
from tests.library.conftest import STARTER_DIGEST
from tests.library.pinned import Pinned, tree
from tests.library.test_real_registry import pushed
from tests.library.test_verify import answer, as_another_user, damage, flip
from tests.parts.ollama import OllamaServer
from tests.parts.registry import RealRegistry
from tests.registry_server import BlobFault, Registry, digest_of

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = random.Random(6).randbytes(3 << 20)
YES = ("repair", "--yes", "--json")


@pytest.fixture
def pinned(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Pinned:
    """A store of its own, and no server."""
    monkeypatch.setattr(blob_download, "BACKOFF_SECONDS", 0.0)
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "profile.yaml").write_text("schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n")
    store = tmp_path / "models"
    store.mkdir()
    return Pinned(folder, f"127.0.0.1:{free_port()}", Store(store))


@pytest.fixture
def offered(pinned: Pinned, registry: Registry) -> tuple[Pinned, Registry, Any]:
    """A model that is pinned, installed, and offered by a registry."""
    pin = pinned.add("m:t", WEIGHTS, host=registry.host)
    offer(pinned, registry, pin)
    return pinned, registry, pin


def offer(pinned: Pinned, registry: Registry, pin: Any) -> None:
    for layer in pin.blobs:
        copy = registry.folder / layer.digest.replace(":", "-")
        copy.write_bytes(pinned.path(layer.digest).read_bytes())
        registry.blobs[layer.digest] = copy
    ref = ModelRef.parse(pin.served)
    registry.manifests[f"{ref.model}/{ref.tag}"] = pinned.store.manifest(ref) or b""


Offered = tuple[Pinned, Registry, Any]


@pytest.mark.parametrize(
    "how", ["flip", "zero", "truncate", "longer", "empty", "delete", "folder", "pipe", "nowhere", "circle"]
)
def test_a_bad_blob_is_fetched_and_nothing_else(offered: Offered, how: str) -> None:
    pinned, registry, pin = offered
    before = tree(pinned.store.path)
    path = pinned.path(pin.weights_digest)
    damage(pinned, how, path)
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert path.read_bytes() == WEIGHTS
    assert not path.is_symlink()
    assert registry.sent == {pin.weights_digest: len(WEIGHTS)}
    # No server runs that could have read it.
    assert done.json["restart_server"] is False
    (mended,) = done.json["mended"]
    assert (mended["what"], mended["name"], mended["fetched_bytes"]) == ("blob", pin.weights_digest, len(WEIGHTS))
    assert registry.host in mended["source"]
    assert done.json["fetched_bytes"] == len(WEIGHTS)
    assert done.json["good"] is True
    after = tree(pinned.store.path)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {f"blobs/{path.name}"}
    again = pinned("repair", "--yes")
    assert again.code == 0
    assert "nothing to repair" in again.out
    assert registry.sent.total() == len(WEIGHTS)


def test_two_swapped_blobs_go_back_without_a_download(offered: Offered) -> None:
    pinned, registry, one = offered
    two = pinned.add("b:t", WEIGHTS[::-1], host=registry.host)
    first, second = pinned.path(one.weights_digest), pinned.path(two.weights_digest)
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert (first.read_bytes(), second.read_bytes()) == (WEIGHTS, WEIGHTS[::-1])
    assert (first.stat().st_nlink, second.stat().st_nlink) == (1, 1)
    assert registry.sent.total() == 0


def test_the_bad_blob_stays_until_a_good_one_is_there(offered: Offered) -> None:
    pinned, registry, pin = offered
    path = pinned.path(pin.weights_digest)
    flip(path, 9)
    spoilt = path.read_bytes()
    seen = []
    registry.streamed = lambda _: seen.append(path.read_bytes() == spoilt)
    registry.blob_fault = "flipped"
    failed = pinned(*YES)
    assert (failed.code, failed.error["code"]) == (ExitCode.FAILED, "hash_mismatch")
    assert all(seen)
    assert path.read_bytes() == spoilt
    assert registry.sent[pin.weights_digest] == 2 * len(WEIGHTS), "wrong bytes are fetched anew once"
    registry.blob_fault = None
    assert pinned(*YES).code == 0
    assert path.read_bytes() == WEIGHTS


def test_a_dry_run_changes_nothing(offered: Offered) -> None:
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    before = tree(pinned.store.path)
    done = pinned("repair", "--dry-run", "--json")
    assert (done.code, done.json["dry_run"]) == (ExitCode.NO, True)
    (mended,) = done.json["mended"]
    assert (mended["name"], mended["fetched_bytes"]) == (pin.weights_digest, None)
    assert "would repair" in pinned("repair", "--dry-run").out
    assert tree(pinned.store.path) == before
    assert registry.asked == []


def test_a_foreign_store_is_changed_with_consent_only(offered: Offered) -> None:
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    before = tree(pinned.store.path)
    done = pinned("repair", "--json")
    assert (done.code, done.error["code"]) == (ExitCode.USAGE, "consent_needed")
    assert str(pinned.store.path) in done.error["message"]
    assert tree(pinned.store.path) == before
    assert registry.sent.total() == 0


@pytest.mark.parametrize("fault", ["truncated", "reset", "whole", "token", "later"])
def test_what_another_attempt_overcomes(offered: Offered, fault: BlobFault) -> None:
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    registry.blob_fault = fault
    registry.blob_faults_left = None if fault == "token" else 2
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert pinned.path(pin.weights_digest).read_bytes() == WEIGHTS
    if fault == "truncated":
        assert registry.sent[pin.weights_digest] == len(WEIGHTS)


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("missing", "blob_not_found", "no blob"),
        ("failing", "download_failed", "answered 500"),
        ("page", "registry_answer", "web page"),
        ("login", "registry_login", "login"),
        ("too_old", "engine_too_old", "newer Ollama"),
        ("busy", "registry_busy", "170 seconds"),
        ("someday", "registry_busy", "try again later"),
        ("loop", "download_failed", "redirects more than"),
        ("short", "registry_answer", "pinned are"),
        ("long", "registry_answer", "pinned are"),
        ("shifted", "registry_answer", "range"),
        ("flipped", "hash_mismatch", "other bytes"),
    ],
)
def test_a_source_that_fails_is_named(offered: Offered, fault: BlobFault, code: str, said: str) -> None:
    pinned, registry, pin = offered
    path = pinned.path(pin.weights_digest)
    flip(path, 1)
    spoilt = path.read_bytes()
    registry.blob_fault = fault
    done = pinned(*YES)
    assert done.code == ExitCode.FAILED
    assert done.out == ""
    assert (done.error["code"], said in done.error["message"]) == (code, True), done.error
    assert registry.host.partition(":")[0] in done.error["message"]
    assert path.read_bytes() == spoilt


def test_a_source_that_stalls_is_given_up_and_what_came_is_kept(
    offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned, registry, pin = offered
    monkeypatch.setattr(blob_download, "STALL_SECONDS", 0.2)
    # Else it is asked again for as long as something comes, and gets there in the end.
    monkeypatch.setattr(blob_download, "PROGRESS_BYTES", 1 << 30)
    pinned.path(pin.weights_digest).unlink()
    registry.blob_fault = "stall"
    done = pinned(*YES)
    assert done.code == ExitCode.FAILED
    assert "stopped sending" in done.error["message"]
    kept = blob_download.partial_path(pinned.store.scratch, pin.weights_digest).stat().st_size
    assert kept > len(WEIGHTS) // 2
    registry.blob_fault = None
    registry.sent.clear()
    assert pinned(*YES).json["fetched_bytes"] == len(WEIGHTS) - kept
    assert registry.sent[pin.weights_digest] == len(WEIGHTS) - kept


@pytest.mark.parametrize(
    "left", [b"", WEIGHTS[:100_000], WEIGHTS, b"wrong" * 1000, WEIGHTS + b"x", bytes(len(WEIGHTS))]
)
def test_a_part_of_an_earlier_run(offered: Offered, left: bytes) -> None:
    """What it has is kept where it is right, and costs one more download where it is wrong."""
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    blob_download.partial_path(pinned.store.make_scratch(), pin.weights_digest).write_bytes(left)
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert pinned.path(pin.weights_digest).read_bytes() == WEIGHTS
    if WEIGHTS.startswith(left):
        assert registry.sent[pin.weights_digest] == len(WEIGHTS) - len(left)
    assert list(pinned.store.scratch.iterdir()) == []


def test_nobody_is_there_and_the_rest_is_still_mended(offered: Offered, free_port: Callable[[], int]) -> None:
    pinned, _, pin = offered
    host = f"127.0.0.1:{free_port()}"
    away = pinned.add("away:t", b"away", template="of its own", host=host)
    for each in (pin, away):
        pinned.path(each.weights_digest).unlink()
    done = pinned(*YES)
    assert done.code == ExitCode.FAILED
    assert host.partition(":")[0] in done.error["message"]
    assert pinned.path(pin.weights_digest).read_bytes() == WEIGHTS
    assert pinned("verify", pin.name).code == 0


def test_a_lock_that_names_plain_http_elsewhere_is_not_followed(pinned: Pinned) -> None:
    pin = replace(pinned.add("m:t", WEIGHTS), from_="http://10.0.0.1:9/v2/own/model/manifests/x")
    assert sources.origin(pin).full == "10.0.0.1:9/own/model:x"
    assert asking.base_url(sources.origin(pin)) == "https://10.0.0.1:9/v2/own/model"
    for odd in ("/some/archive.tar", "https://h/v2/../m/manifests/t", "https://h/v2/a/b/manifests/t?x=1"):
        assert str(sources.origin(replace(pin, from_=odd))) == pin.served


@pytest.mark.parametrize("content", [None, b"{}", b"\0" * 50])
def test_a_manifest_comes_back_from_where_it_is_nearest(offered: Offered, content: bytes | None) -> None:
    pinned, registry, pin = offered
    alias, plain = ModelRef.parse(pin.alias), ModelRef.parse(pin.served)
    right = pinned.store.manifest(plain)

    def spoil(ref: ModelRef) -> None:
        path = pinned.store.manifest_path(ref)
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    spoil(alias)
    assert "in the store" in pinned(*YES).json["mended"][0]["source"]
    assert pinned.store.manifest(alias) == right

    pinned.store.remove_manifest(plain)
    spoil(alias)
    assert "the lock" in pinned(*YES).json["mended"][0]["source"]
    assert pinned.store.manifest(alias) == right
    assert registry.asked == []


def spaced(pinned: Pinned, registry: Registry) -> tuple[Any, bytes]:
    """A pin whose manifest no lock can tell: another registry wrote it in its own way."""
    pin = pinned.add("s:t", WEIGHTS, host=registry.host)
    ref = ModelRef.parse(pin.served)
    content = json.dumps(json.loads(pinned.store.manifest(ref) or b""), indent=3).encode()
    pinned.store.remove_manifest(ModelRef.parse(pin.alias))
    pinned.store.remove_manifest(ref)
    pin = replace(pin, manifest_digest=digest_of(content))
    pinned.pin(pin)
    return pin, content


def test_a_manifest_is_asked_for_by_its_digest_and_by_its_tag(pinned: Pinned, registry: Registry) -> None:
    pin, content = spaced(pinned, registry)
    alias = ModelRef.parse(pin.alias)
    registry.manifests["s/t"] = b'{"moved": true}'
    moved = pinned(*YES)
    assert moved.code == ExitCode.NO
    assert "moved" in moved.json["failed"][0]["reason"]
    assert pinned.store.manifest(alias) is None

    registry.manifests["s/t"] = content
    assert pinned(*YES).code == 0
    assert pinned.store.manifest(alias) == content

    pinned.store.remove_manifest(alias)
    registry.manifests = {"s/t": b"{}", f"s/{pin.manifest_digest}": content}
    assert pinned(*YES).code == 0
    assert pinned.store.manifest(alias) == content


def test_a_manifest_comes_after_its_blobs(pinned: Pinned, registry: Registry) -> None:
    pin, content = spaced(pinned, registry)
    registry.manifests["s/t"] = content
    pinned.path(pin.weights_digest).unlink()
    assert pinned(*YES).code == ExitCode.FAILED
    assert pinned.store.manifest(ModelRef.parse(pin.alias)) is None


def file_pin(pinned: Pinned, path: Path) -> Any:
    """A model that was made of a GGUF file."""
    pin = pinned.add("f:t", WEIGHTS)
    path.write_bytes(WEIGHTS)
    pin = replace(pin, source="file", registry=None, from_=f"{path} {digest_of(WEIGHTS)}")
    pinned.pin(pin)
    return pin


def test_weights_of_a_file_come_from_the_file(pinned: Pinned, tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    pin = file_pin(pinned, file)
    path = pinned.path(pin.weights_digest)
    flip(path, 3)
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert path.read_bytes() == WEIGHTS
    assert (done.json["mended"][0]["source"], done.json["fetched_bytes"]) == (str(file), 0)

    flip(path, 3)
    flip(file, 4)
    changed = pinned(*YES)
    assert changed.code == ExitCode.NO
    assert str(file) in changed.json["failed"][0]["reason"]
    file.unlink()
    gone = pinned(*YES)
    assert gone.code == ExitCode.NO
    assert "--update" in gone.json["failed"][0]["hint"]
    assert path.exists()


def test_what_only_a_server_makes_says_so_without_one(pinned: Pinned, tmp_path: Path) -> None:
    pin = file_pin(pinned, tmp_path / "m.gguf")
    pinned.path(pin.config.digest).write_bytes(b"{}")
    done = pinned(*YES)
    assert done.code == ExitCode.UNREACHABLE
    assert "llmctl up" in done.error["hint"]
    assert pinned.path(pin.config.digest).read_bytes() == b"{}"


def test_a_blob_that_may_not_be_read_is_allowed_to_be(offered: Offered) -> None:
    pinned, registry, pin = offered
    path = pinned.path(pin.weights_digest)
    path.chmod(0)
    done = as_another_user(pinned, "repair", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == WEIGHTS
    assert registry.sent.total() == 0


def test_a_store_that_may_not_be_written_names_the_command(offered: Offered) -> None:
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    pinned.store.blobs_folder.chmod(0o555)
    done = as_another_user(pinned, "repair", "--yes", "--json")
    pinned.store.blobs_folder.chmod(0o755)
    assert done.returncode == ExitCode.FAILED
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["code"] == "permission_denied"
    assert " repair --profile " in error["hint"]
    assert registry.asked == []


@pytest.mark.real("tmpfs")
def test_a_disk_without_room_is_said_before_anything_is_fetched(
    offered: Offered, small_disk: Callable[[int], Path]
) -> None:
    pinned, registry, _ = offered
    small = Pinned(pinned.folder, pinned.url, Store(small_disk(8 << 20)))
    done = small(*YES)
    assert (done.code, done.error["code"]) == (ExitCode.FAILED, "disk_full")
    assert registry.sent.total() == 0


def started(pinned: Pinned, *words: str) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "OLLAMA_HOST": pinned.url, "LLMCTL_CONFIG_DIR": str(pinned.folder)}
    program = [sys.executable, "-m", "llmctl", *words, "--store", str(pinned.store.path)]
    return subprocess.Popen(program, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_repair_goes_on_from_the_bytes_it_has(pinned: Pinned, registry: Registry, how: signal.Signals) -> None:
    weights = random.Random(7).randbytes(1 << 20) * 48
    pin = pinned.add("big:t", weights, host=registry.host)
    offer(pinned, registry, pin)
    pinned.path(pin.weights_digest).unlink()
    partial = blob_download.partial_path(pinned.store.scratch, pin.weights_digest)
    registry.blob_fault = "trickle"
    process = started(pinned, "repair", "--yes")
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < 5 << 20:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how is signal.SIGKILL else ExitCode.INTERRUPTED)
    kept = partial.stat().st_size
    assert kept >= 5 << 20
    registry.blob_fault = None
    registry.sent.clear()
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert done.json["fetched_bytes"] == len(weights) - kept
    # The connection of the killed run may have had a last piece under way.
    assert 0 <= registry.sent[pin.weights_digest] - (len(weights) - kept) < 1 << 20
    assert registry.asked[-1].endswith(f"bytes={kept}-{len(weights) - 1}")
    assert pinned.path(pin.weights_digest).read_bytes() == weights


def test_two_repairs_at_once_fetch_it_once(offered: Offered) -> None:
    pinned, registry, pin = offered
    pinned.path(pin.weights_digest).unlink()
    registry.blob_fault = "trickle"
    begun = threading.Event()
    registry.streamed = lambda _: begun.set()
    first = started(pinned, "repair", "--yes")
    assert begun.wait(60)
    registry.blob_fault = None
    second = pinned(*YES)
    assert first.wait(60) == second.code == 0, second.err
    first.communicate()
    assert second.json["good"] is True
    assert registry.sent[pin.weights_digest] == len(WEIGHTS)


real = pytest.mark.real("ollama", "model")


def starter_damage(pinned: Pinned, how: str) -> None:
    path = pinned.path(STARTER_DIGEST)
    if how == "flip":
        flip(path, 200_000_000)
    elif how == "zero":
        with path.open("r+b") as file:
            file.seek(100 << 20)
            file.write(bytes(4096))
    elif how == "truncate":
        os.truncate(path, 100_000_000)
    else:
        config = lock_file.read(pinned.lock_path).models[0].config
        assert config
        other = pinned.path(config.digest)
        path.rename(path.with_name("aside"))
        other.rename(path)
        path.with_name("aside").rename(other)


@real
@pytest.mark.parametrize("how", ["flip", "zero", "truncate", "swap"])
def test_the_starter_is_mended_under_a_running_server(
    served: tuple[Pinned, OllamaServer], published: Registry, how: str
) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    published.sent.clear()
    starter_damage(pinned, how)
    found = pinned("verify", "--json", given=False)
    assert found.code == ExitCode.NO
    assert STARTER_DIGEST in [bad["digest"] for bad in found.json["bad_blobs"]]
    asked = pinned("repair", "--json", given=False)
    assert asked.error["code"] == "consent_needed"
    assert server.url in asked.error["message"]
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == 0, done.err
    assert published.sent[STARTER_DIGEST] == (0 if how == "swap" else pinned.path(STARTER_DIGEST).stat().st_size)
    assert pinned("verify", given=False).code == 0
    assert answer(server, pin.alias)


@real
def test_a_runner_that_has_the_old_bytes_is_named(served: tuple[Pinned, OllamaServer]) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    assert answer(server, pin.alias)
    flip(pinned.path(STARTER_DIGEST), 250_000_000)
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == 0, done.err
    assert "llmctl down" in done.json["notes"][0]
    assert done.json["restart_server"] is True
    assert f"{server.url} remembers what it read" in done.json["notes"][1]
    assert answer(server, pin.alias)


@real
def test_a_deleted_alias_and_all_its_blobs(served: tuple[Pinned, OllamaServer], published: Registry) -> None:
    pinned, server = served
    pin = lock_file.read(pinned.lock_path).models[0]
    server.request("DELETE", "/api/delete", {"model": pin.served})
    server.request("DELETE", "/api/delete", {"model": pin.alias})
    assert not pinned.path(STARTER_DIGEST).exists()
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == 0, done.err
    assert {mended["what"] for mended in done.json["mended"]} == {"blob", "manifest"}
    assert answer(server, pin.alias)


@pytest.fixture
def made(
    pinned: Pinned, ollama_server: Callable[[], OllamaServer], starter_gguf: Path, tmp_path: Path
) -> tuple[Pinned, OllamaServer, Path]:
    """A model that a real server made of a file, and its sibling with a context."""
    server = ollama_server()
    pinned.url, pinned.store = server.url, Store(server.models)
    file = tmp_path / "own.gguf"
    os.link(starter_gguf, file)
    done = pinned("pull", str(file), "--yes", given=False)
    assert done.code == 0, done.err
    alias = lock_file.read(pinned.lock_path).models[0].alias
    server.post("/api/create", {"model": f"{alias}-c512", "from": alias, "parameters": {"num_ctx": 512}})
    return pinned, server, file


def blob_of(pinned: Pinned, name: str, kind: str) -> str:
    manifest = json.loads(pinned.store.manifest(ModelRef.parse(name)) or b"")
    layers = [manifest["config"], *manifest["layers"]]
    return str(next(layer["digest"] for layer in layers if kind in layer["mediaType"]))


@real
@pytest.mark.parametrize("which", ["config", "params", "alias", "context", "weights", "all"])
def test_what_a_server_made_is_made_anew(made: tuple[Pinned, OllamaServer, Path], which: str) -> None:
    pinned, server, file = made
    pin = lock_file.read(pinned.lock_path).models[0]
    before = pinned.lock_path.read_bytes()
    context = f"{pin.alias}-c512"
    if which in {"config", "all"}:
        pinned.path(blob_of(pinned, pin.alias, "container.image")).write_bytes(b"{}")
    if which == "params":
        pinned.path(blob_of(pinned, context, "params")).write_bytes(b'{"num_ctx":7}')
    if which in {"alias", "all"}:
        pinned.store.manifest_path(ModelRef.parse(pin.alias)).write_bytes(b"{}")
    if which == "context":
        pinned.store.manifest_path(ModelRef.parse(context)).write_bytes(b"\0")
    if which in {"weights", "all"}:
        flip(pinned.path(pin.weights_digest), 99)
    else:
        file.unlink()
    assert pinned("verify", given=False).code == ExitCode.NO
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == 0, (done.out, done.err)
    assert pinned("verify", given=False).code == 0
    assert pinned.lock_path.read_bytes() == before
    assert answer(server, pin.alias)
    assert answer(server, context)
    assert server.ps(context)["context_length"] == 512
    assert not list(pinned.store.scratch.iterdir())


@real
def test_where_making_anew_fails_everything_is_back(
    made: tuple[Pinned, OllamaServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned, server, _ = made
    pin = lock_file.read(pinned.lock_path).models[0]
    config = pinned.path(blob_of(pinned, pin.alias, "container.image"))
    config.write_bytes(b"{}")
    manifest = pinned.store.manifest(ModelRef.parse(pin.alias))
    create = Client.create

    def dies(self: Client, *words: Any, **more: Any) -> Any:
        server.stop()
        return create(self, *words, **more)

    monkeypatch.setattr(Client, "create", dies)
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == ExitCode.UNREACHABLE, done.out
    assert config.read_bytes() == b"{}"
    assert pinned.store.manifest(ModelRef.parse(pin.alias)) == manifest


@pytest.mark.real("ollama", "model", "registry")
def test_a_real_registry_is_asked_for_the_rest_over_https(
    pinned: Pinned, https_registry: RealRegistry, ollama_server: StartOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker-registry behind nginx, with an authority of its own, and half of the blob there already."""
    for key, value in https_registry.environ.items():
        monkeypatch.setenv(key, value)
    name = pushed(https_registry, ollama_server(https_registry.environ, with_starter=True))
    server = ollama_server(https_registry.environ)
    pinned.url, pinned.store = server.url, Store(server.models)
    assert pinned("pull", name, "--yes", given=False).code == 0
    path = pinned.path(STARTER_DIGEST)
    content = path.read_bytes()
    half = len(content) // 2
    blob_download.partial_path(pinned.store.make_scratch(), STARTER_DIGEST).write_bytes(content[:half])
    flip(path, 5)
    done = pinned("repair", "--yes", "--json", given=False)
    assert done.code == 0, done.err
    assert done.json["fetched_bytes"] == len(content) - half
    assert path.read_bytes() == content


def test_a_file_behind_a_link_is_neither_moved_in_nor_given_a_name(offered: Offered, tmp_path: Path) -> None:
    pinned, registry, one = offered
    two = pinned.add("b:t", WEIGHTS[::-1], host=registry.host)
    offer(pinned, registry, two)
    elsewhere = tmp_path / "somebody's"
    elsewhere.write_bytes(WEIGHTS[::-1])
    elsewhere.chmod(0o600)
    flip(pinned.path(two.weights_digest), 1)
    pinned.path(one.weights_digest).unlink()
    pinned.path(one.weights_digest).symlink_to(elsewhere)
    planned = pinned("repair", "--dry-run", "--json").json["mended"]
    assert {mended["source"].partition("/")[0] for mended in planned} == {registry.host}
    done = pinned(*YES)
    assert done.code == 0, done.err
    assert {mended["source"].partition("/")[0] for mended in done.json["mended"]} == {registry.host}
    assert pinned.path(two.weights_digest).read_bytes() == WEIGHTS[::-1]
    assert (elsewhere.stat().st_nlink, elsewhere.stat().st_mode & 0o777) == (1, 0o600)


def test_the_mode_of_a_file_behind_a_link_is_not_changed(offered: Offered) -> None:
    pinned, _, pin = offered
    path = pinned.path(pin.weights_digest)
    target = path.rename(pinned.store.path / "elsewhere")
    target.chmod(0)
    path.symlink_to(target)
    done = as_another_user(pinned, "repair", "--yes", "--json")
    assert done.returncode != 0
    assert target.stat().st_mode & 0o777 == 0
