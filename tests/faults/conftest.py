"""A real server with a store of its own, a registry that lies on request, and tiny weights that no other test has."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import main
from llmctl.core.manifest import parse_manifest
from llmctl.core.pin import Lock
from llmctl.env import Env
from llmctl.library import lock_file
from tests.conftest import StartOllama
from tests.memory import gguf_bytes
from tests.parts import machine
from tests.parts.ollama import OllamaServer
from tests.registry_server import Registry, digest_of, serving

PROFILE = "schema: 1\nmodels:\n  - name: m\ngpu: {require: none}\n"
ROW_BYTES = 144 * 2
MIB = 1 << 20
# Root without the right to pass over modes: what other users are.
UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rows = getattr(metafunc.function, "faults", [])
    if rows and rows[0][1]:
        names = list(rows[0][1])
        values = [tuple(arguments[name] for name in names) for _, arguments in rows]
        metafunc.parametrize(names, values, ids=[re.sub(r"\W+", "-", what) for what, _ in rows])


def tiny_gguf(seed: str, size_bytes: int = 4096) -> bytes:
    """A Q4_K_M file whose weights are the seed's own: about `size_bytes` of them."""
    rows = max(1, size_bytes // ROW_BYTES)
    keys = [
        gguf_bytes.key("general.architecture", gguf_bytes.STRING, gguf_bytes.text("llama")),
        gguf_bytes.key("general.file_type", gguf_bytes.U32, struct.pack("<I", 15)),
        gguf_bytes.key("general.name", gguf_bytes.STRING, gguf_bytes.text(seed)),
    ]
    header = gguf_bytes.file(keys, [gguf_bytes.tensor("blk.0.ffn_down.weight", (512, rows), 12)])
    return header + random.Random(seed).randbytes(rows * ROW_BYTES)


@dataclass(frozen=True)
class Model:
    """What the registry has under `name`; `manifest` and `weights` are `sha256:<64 hex>`."""

    name: str
    manifest: str
    weights: str
    size_bytes: int


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def finished(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


@dataclass
class Box:
    """One person's machine: `box("pull", …)` is what they type."""

    server: OllamaServer
    registry: Registry
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "profile.yaml").write_text(PROFILE)

    @property
    def settings(self) -> dict[str, str]:
        return {**os.environ, "OLLAMA_HOST": self.server.url, "LLMCTL_CONFIG_DIR": str(self.folder), **self.environ}

    @property
    def store(self) -> Path:
        return self.server.models

    @property
    def lock_path(self) -> Path:
        return self.folder / "profile.lock"

    @property
    def lock(self) -> Lock:
        return lock_file.read(self.lock_path)

    def __call__(self, *words: str) -> Ran:
        stdout, stderr = io.StringIO(), io.StringIO()
        code = main(list(words), Env(self.settings, io.StringIO(), stdout, stderr))
        return Ran(code, stdout.getvalue(), stderr.getvalue())

    def start(self, *words: str, unprivileged: bool = False, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """The same as a process of its own, which can be killed. `unprivileged`: modes and owners count for it, even
        where root runs the tests."""
        return subprocess.Popen(
            [*machine.ENDS_WITH_TESTS, *(UNPRIVILEGED if unprivileged else []), sys.executable, "-m", "llmctl", *words],
            env=self.settings,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, unprivileged: bool = False) -> Ran:
        return finished(self.start(*words, unprivileged=unprivileged))

    def publish(
        self, tag: str = "t", *, seed: str = "", size_bytes: int = 4096, template: str = "{{ .Prompt }}"
    ) -> Model:
        """Put weights into the registry as `m:<tag>`; other seeds are other weights of the same size."""
        content = tiny_gguf(f"{self.folder} {seed}", size_bytes)
        path = self.registry.folder / f"{digest_of(content)[7:19]}.gguf"
        path.write_bytes(content)
        manifest = self.registry.add(f"m:{tag}", path, digest_of(content), template=template)
        return Model(self.registry.name(f"m:{tag}"), manifest, digest_of(content), len(content))

    def pulled(self, tag: str = "t", **how: Any) -> Model:
        """Published, pulled and pinned."""
        model = self.publish(tag, **how)
        done = self("pull", model.name)
        assert done.code == 0, done.err
        return model

    def blob(self, digest: str) -> Path:
        return self.store / "blobs" / digest.replace(":", "-")

    def tags(self) -> dict[str, str]:
        return {model["name"]: f"sha256:{model['digest']}" for model in self.server.get("/api/tags")["models"]}

    def bad_blobs(self) -> set[str]:
        """Files of the store, finished by their name, that do not hash to it."""
        found = (self.store / "blobs").glob("sha256-*")
        whole = [path for path in found if "-partial" not in path.name]
        return {
            path.name.replace("-", ":", 1)
            for path in whole
            if not path.is_file() or sha256(path) != path.name.replace("-", ":", 1)
        }

    def sound(self, *, bad: set[str] | None = None) -> None:
        """What must hold after anything: the lock loads, nothing half done lies where a server looks, and what is
        pinned and not reported bad hashes. `bad` is damage that the test did and nobody has mended."""
        bad = bad or set()
        lock = self.lock
        assert self.bad_blobs() == bad
        for path in (self.store / "manifests").rglob("*"):
            if path.is_file():
                listed = parse_manifest(path.read_bytes())
                missing = {layer.digest for layer in listed.blobs if not self.blob(layer.digest).exists()}
                assert missing <= bad, f"{path} lacks {missing}"
        assert not list((self.store / ".llmctl").glob("manifest-*"))
        reported = self.reported() if lock.models else set()
        for pin in lock.models:
            reached = {layer.digest for layer in pin.layers} | {pin.config.digest if pin.config else pin.weights_digest}
            for digest in reached - reported:
                assert sha256(self.blob(digest)) == digest
        assert reported <= bad

    def reported(self) -> set[str]:
        """The blobs that `llmctl verify` calls bad."""
        done = self("verify", "--json")
        assert done.code in {0, 5}, done.err
        found = {blob["digest"] for blob in done.json["bad_blobs"]}
        assert done.json["good"] is (done.code == 0)
        assert not found or done.code == 5
        return found

    def nothing_happened(self) -> None:
        """Neither pinned nor installed."""
        assert self.lock == Lock()
        assert self.tags() == {}
        self.sound()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def box(ollama_server: StartOllama, registry: Registry, tmp_path: Path) -> Box:
    return Box(ollama_server(), registry, tmp_path / "config")
